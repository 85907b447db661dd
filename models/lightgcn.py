"""LightGCN: vectors of users and items, smoothed over the graph of who bought what."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from models.factorisation import ITEMS_PER_STEP, Factors
from models.graph import Graph
from models.hops import Hop
from models.neighbours import sparse_weights
from models.propagation import Adjacency, ranges
from models.ranking import Ranker
from models.settings import ModelSettings

DIMENSION = 128
LAYERS = 2
EPOCHS = 15
LEARNING_RATE = 2e-2
TEMPERATURE = 0.12
USERS_PER_STEP = 512
QUERIES_AT_A_TIME = 256  # to stay in the processor's cache
POWER_ITERATIONS = 3
START = 0.1


def pair_weights(graph: Graph, half_life_days: float) -> Any:
    """Σ strength · 2^(−age/half-life) of each pair: scipy CSR [U, I]."""
    return sparse_weights(graph, half_life_days) ** 2


def hops(graph: Graph, half_life_days: float) -> tuple[Hop, Hop]:
    """Users ← items and items ← users, weighted w_ui / √(d_u d_i) with w_ui = Σ strength · 2^(−age/half-life)."""
    weights = pair_weights(graph, half_life_days).tocoo()
    device = graph.interactions.strength.device
    user, item = (torch.from_numpy(index).long().to(device) for index in weights.coords)
    weight = torch.from_numpy(weights.data).to(device)
    user_degree = torch.zeros(graph.user_count, device=device).index_add_(0, user, weight)
    item_degree = torch.zeros(graph.item_count, device=device).index_add_(0, item, weight)
    share = weight / (user_degree[user] * item_degree[item]).sqrt().clamp(min=1e-30)
    by_item = torch.argsort(item, stable=True)
    to_users = Adjacency.build(user, item, graph.user_count, graph.item_count)
    to_items = Adjacency.build(item[by_item], user[by_item], graph.item_count, graph.user_count)
    return Hop(to_users, share), Hop(to_items, share[by_item])


def smooth(users: Tensor, items: Tensor, to_users: Hop, to_items: Hop, layers: int = LAYERS) -> tuple[Tensor, Tensor]:
    """The mean over layers 0..L of x ← Ã x (He et al. 2020, arXiv 2002.02126): float32 [U, D] and [I, D].

    The hops must be each other's transpose, as those of `hops` are.
    """
    return _Smooth.apply(users, items, to_users, to_items, layers)  # pyright: ignore[reportReturnType]


class _Smooth(torch.autograd.Function):
    """Ã is symmetric, and so is a sum of its powers: gradients are smoothed just as values are."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, *along: Any) -> tuple[Tensor, Tensor]:
        ctx.along = along
        return _mean_of_layers(users, items, *along)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        users, items = (gradient.contiguous() for gradient in gradients)
        return *_mean_of_layers(users, items, *ctx.along), None, None, None


def _mean_of_layers(users: Tensor, items: Tensor, to_users: Hop, to_items: Hop, layers: int) -> tuple[Tensor, Tensor]:
    """(x + Ã (x + Ã (x + …))) / (L + 1)."""
    user_sum, item_sum = users, items
    for _ in range(layers):
        user_sum, item_sum = to_users(item_sum).add_(users), to_items(user_sum).add_(items)
    return user_sum / (layers + 1), item_sum / (layers + 1)


def fit_lightgcn(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    dimension: int = DIMENSION,
    layers: int = LAYERS,
    temperature: float = TEMPERATURE,
    epochs: int = EPOCHS,
    length_power: float = 1.0,
    spectral: bool = False,
    users_per_step: int = USERS_PER_STEP,
    items_per_step: int = ITEMS_PER_STEP,
    learning_rate: float = LEARNING_RATE,
) -> Callable[[Graph], Ranker]:
    """Minimises −Σ w_ui log softmax_i(s_ui / temperature), s_ui = u·i / (|u| |i|^p), of smoothed vectors.

    p is length_power: 1 makes s the cosine; with less, long items come first. spectral: see `spectral_start`, else all
    start at random. Catalogues of more than items_per_step are drawn from, evenly. learning_rate: Adam's at first, it falls
    to a share of 1 / epochs; a low one keeps near the start. An infinite half-life is the undecayed LightGCN. A later graph
    smooths the same vectors over its own edges.
    """
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    dice = torch.Generator(device).manual_seed(settings.seed)
    counts = graph.user_count, graph.item_count
    users, items = (torch.randn(count, dimension, generator=dice, device=device) * START for count in counts)
    to_users, to_items = hops(graph, half_life_days)
    if spectral:
        users, items = spectral_start(users, items, to_users, to_items)
    users, items = nn.Parameter(users), nn.Parameter(items)
    bought = Hop(to_users.adjacency, torch.from_numpy(pair_weights(graph, half_life_days).data).to(device))
    known = torch.nonzero(bought.adjacency.row_offsets.diff()).squeeze(1)
    optimizer = torch.optim.Adam([users, items], lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / epochs, total_iters=epochs)
    for _ in range(epochs if len(known) else 0):
        order = known[torch.randperm(len(known), generator=dice, device=device)]
        for batch in order.split(users_per_step):
            user_vectors, item_vectors = smooth(users, items, to_users, to_items, layers)
            queries = normalize(user_vectors[batch], dim=1) / temperature
            loss = softmax_of_users(queries, scaled(item_vectors, length_power), bought, batch, items_per_step, dice)
            optimizer.zero_grad()
            (loss / len(batch)).backward()
            optimizer.step()
        schedule.step()
    own = torch.zeros_like(users).index_copy_(0, known, users.detach()[known])  # of the others nothing was learned

    @torch.no_grad()
    def refresh(now: Graph) -> Ranker:
        user_vectors, item_vectors = smooth(own, items.detach(), *hops(now, half_life_days), layers)
        unit_users, long_items = normalize(user_vectors, dim=1), scaled(item_vectors, length_power)
        return Factors("lightgcn", now, half_life_days, unit_users, long_items, torch.zeros(len(items), device=device))

    return refresh


@torch.no_grad()
def spectral_start(users: Tensor, items: Tensor, to_users: Hop, to_items: Hop) -> tuple[Tensor, Tensor]:
    """Vectors along the main singular directions of Ã, as long as the random ones given, and a tenth of these.

    The directions come from block power iteration on the items. float32 [U, D] and [I, D].
    """
    basis = items
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(to_items(to_users(basis)))[0]
    basis = pad(basis, (0, items.shape[1] - basis.shape[1])).contiguous()
    starts = (to_users(basis), users), (basis, items)
    return tuple(at * (given.norm() / at.norm().clamp(min=1e-30)) + 0.1 * given for at, given in starts)  # pyright: ignore


def scaled(vectors: Tensor, power: float) -> Tensor:
    """x / |x|^p by row; 0 stays 0."""
    return vectors * vectors.square().sum(1, keepdim=True).clamp(min=1e-24) ** (-power / 2)


def softmax_of_users(
    queries: Tensor, items: Tensor, bought: Hop, batch: Tensor, items_per_step: int, dice: torch.Generator
) -> Tensor:
    """−Σ w log softmax over the items, of all that the users of the batch bought: queries [B, D], items [I, D] → scalar.

    Σ_i w_ui (log Σ_j e^(q_u·j) − q_u·i) = (Σ_i w_ui) log Σ_j e^(q_u·j) − q_u·(Σ_i w_ui i): no work per pair but one hop.
    Of large catalogues, the sum over an even draw, times I / draws, stands for the sum over all.
    """
    history = rows_of(bought, batch)
    total = history(torch.ones_like(items[:, :1]).contiguous()).squeeze(1)
    others, correction = items, 0.0
    if len(items) > items_per_step:
        others = items[torch.randint(len(items), (items_per_step,), generator=dice, device=items.device)]
        correction = log(len(items) / items_per_step)
    parts = [torch.logsumexp(part @ others.T, 1) for part in queries.split(QUERIES_AT_A_TIME)]
    return (total * (torch.cat(parts) + correction)).sum() - (queries * history(items)).sum()


def rows_of(hop: Hop, rows: Tensor) -> Hop:
    """These rows of a hop, int64 [B], in their order."""
    start = hop.adjacency.row_offsets
    row, edge = ranges(start[rows].long(), start[rows + 1].long())
    adjacency = Adjacency.build(
        row, hop.adjacency.column[edge].long(), len(rows), len(hop.adjacency.column_offsets) - 1
    )
    return Hop(adjacency, hop.weight[edge])

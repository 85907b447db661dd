"""LightGCN: vectors of users and items, smoothed over the graph of who bought what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.factorisation import Factors, softmax_loss
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
) -> Callable[[Graph], Ranker]:
    """Minimises −Σ w_ui log softmax_i(cos(u, i) / temperature) of smoothed vectors, users in random batches.

    An infinite half-life is the undecayed LightGCN. A later graph smooths the same vectors over its own edges.
    """
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    dice = torch.Generator(device).manual_seed(settings.seed)
    users, items = (
        nn.Parameter(torch.randn(count, dimension, generator=dice, device=device) * 0.1)
        for count in (graph.user_count, graph.item_count)
    )
    to_users, to_items = hops(graph, half_life_days)
    start, item = to_users.adjacency.row_offsets.long(), to_users.adjacency.column.long()
    weight = torch.from_numpy(pair_weights(graph, half_life_days).data).to(device)
    known = torch.nonzero(start.diff()).squeeze(1)
    optimizer = torch.optim.Adam([users, items], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / epochs, total_iters=epochs)
    for _ in range(epochs if len(known) else 0):
        order = known[torch.randperm(len(known), generator=dice, device=device)]
        for batch in order.split(USERS_PER_STEP):
            row, edge = ranges(start[batch], start[batch + 1])
            user_vectors, item_vectors = smooth(users, items, to_users, to_items, layers)
            queries = normalize(user_vectors[batch], dim=1) / temperature
            loss = softmax_loss(queries, normalize(item_vectors, dim=1), row, item[edge], weight[edge], dice)
            optimizer.zero_grad()
            (loss / len(batch)).backward()
            optimizer.step()
        schedule.step()
    own = torch.zeros_like(users).index_copy_(0, known, users.detach()[known])  # of the others nothing was learned

    @torch.no_grad()
    def refresh(now: Graph) -> Ranker:
        user_vectors, item_vectors = smooth(own, items.detach(), *hops(now, half_life_days), layers)
        unit_users, unit_items = normalize(user_vectors, dim=1), normalize(item_vectors, dim=1)
        return Factors("lightgcn", now, half_life_days, unit_users, unit_items, torch.zeros(len(items), device=device))

    return refresh

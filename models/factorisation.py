"""Matrix factorisation learned from pairs (BPR), plain and with time, and what all models of vectors share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize

from models.graph import Graph
from models.kernels import decay
from models.neighbours import explain_by_history
from models.ranking import Ranker
from models.settings import ModelSettings

DIMENSION = 64
STEPS = 1500
EVENTS_PER_STEP = 8192
LEARNING_RATE = 1e-2
RIDGE = 3e-3
BIN_DAYS = 30
DRIFT_POWER = 0.4  # Koren's β
ITEMS_PER_STEP = 8192  # more are sampled


@dataclass(frozen=True)
class Factors:
    """score(u, i) = p_u · q_i + b_i."""

    name: str
    graph: Graph
    half_life_days: float
    users: Tensor  # float32 [U, D]
    items: Tensor  # float32 [I, D]
    bias: Tensor  # float32 [I]

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        return torch.addmm(self.bias, self.users[users], self.items.T)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return nearest_in_history(self.graph, self.half_life_days, self.items, users, items)


def nearest_in_history(
    graph: Graph, half_life_days: float, vectors: Tensor, users: Tensor, items: Tensor
) -> tuple[list[str], Tensor, Tensor]:
    """The item of the history with the highest decayed weight × cosine to each pair's item; "trend" where none is above 0."""
    unit = normalize(vectors, dim=1)
    return explain_by_history(graph, half_life_days, lambda wanted: unit[wanted] @ unit.T, users, items)


def softmax_loss(
    queries: Tensor, items: Tensor, row: Tensor, item: Tensor, weight: Tensor, dice: torch.Generator
) -> Tensor:
    """−Σ weight · log softmax over the items, of the targets (row, item): queries [B, D], items [I, D] → scalar.

    Large catalogues are drawn from evenly; the sum over the draw, times I / draws, stands for the sum over all others.
    """
    positive = (queries[row] * items[item]).sum(1)
    if len(items) <= ITEMS_PER_STEP:
        total = torch.logsumexp(queries @ items.T, 1)[row]
    else:
        drawn = torch.randint(len(items), (ITEMS_PER_STEP,), generator=dice, device=items.device)
        others = torch.logsumexp(queries @ items[drawn].T, 1)[row] + log(len(items) / ITEMS_PER_STEP)
        total = torch.logaddexp(positive, others)
    return ((total - positive) * weight).sum()


class Factorisation(nn.Module):
    """x(u, i, t) = b_i + b_i,bin(t) + (p_u + a_u dev_u(t)) · q_i, dev_u(t) = sign(t − t_u) |t − t_u|^β, t_u = mean date of u.

    The terms with t are those of timeSVD++ (Koren 2009, doi 10.1145/1557019.1557072); without them it is plain.
    """

    def __init__(self, graph: Graph, timed: bool, dimension: int, dice: torch.Generator) -> None:
        super().__init__()
        events, device = graph.interactions, graph.interactions.strength.device
        self.timed, self.bin_count = timed, graph.oldest_days // BIN_DAYS + 1

        def table(rows: int, columns: int, spread: float) -> nn.Embedding:
            start = torch.randn(rows, columns, generator=dice, device=device) * spread
            return nn.Embedding.from_pretrained(start, freeze=False)

        self.user, self.item = (table(count, dimension, 0.1) for count in (graph.user_count, graph.item_count))
        self.bias = table(graph.item_count, 1, 0.0)
        self.drift = table(graph.user_count if timed else 0, dimension, 0.0)
        self.bin_bias = table(graph.item_count * self.bin_count if timed else 0, 1, 0.0)
        count = torch.bincount(events.user_index, minlength=graph.user_count)
        total = torch.zeros_like(count).index_add_(0, events.user_index, events.age_days.long())
        self.mean_age = total / count.clamp(min=1)
        self.user.weight.data[count == 0] = 0.0

    def users(self, user: Tensor, age_days: Tensor) -> Tensor:
        """p_u(t): float32 [B, D]."""
        if not self.timed:
            return self.user(user)
        later = (self.mean_age[user] - age_days) / 365.0
        return self.user(user) + self.drift(user) * (later.sign() * later.abs() ** DRIFT_POWER)[:, None]

    def biases(self, item: Tensor, age_days: Tensor) -> Tensor:
        """b_i(t): float32 [B]."""
        bias = self.bias(item)
        if self.timed:
            bias = bias + self.bin_bias(item * self.bin_count + (age_days // BIN_DAYS).clamp(min=0))
        return bias.squeeze(1)


def fit_factorisation(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    dimension: int = DIMENSION,
    ridge: float = RIDGE,
    learning_rate: float = LEARNING_RATE,
    *,
    timed: bool,
) -> Callable[[Graph], Ranker]:
    """BPR-MF (Rendle et al. 2009, arXiv 1205.2618), plain or with time; users keep the vectors they were learned with.

    Minimises −Σ log σ(x(u, i, t) − x(u, j, t)) + λ |parameters|², events drawn by their decayed strength, j at even odds.
    With time, scores are those at the date of the refresh, with the items' newest biases.
    """
    half_life_days = half_life * horizon_days
    device = graph.interactions.strength.device
    dice = torch.Generator(device).manual_seed(settings.seed)
    model = Factorisation(graph, timed, dimension, dice).to(device)
    if len(graph.interactions.strength):
        _learn(model, graph, half_life_days, ridge, learning_rate, dice)

    @torch.no_grad()
    def refresh(now: Graph) -> Ranker:
        ahead = -torch.tensor((now.as_of - graph.as_of).days, device=device)  # as an age at the date of learning
        users = model.users(torch.arange(graph.user_count, device=device), ahead)
        bias = model.biases(torch.arange(graph.item_count, device=device), ahead)
        name = "time_mf" if timed else "bpr_mf"
        return Factors(name, now, half_life_days, users, model.item.weight.detach(), bias)

    return refresh


fit_bpr = partial(fit_factorisation, timed=False)
fit_time_mf = partial(fit_factorisation, timed=True)


def _learn(
    model: Factorisation,
    graph: Graph,
    half_life_days: float,
    ridge: float,
    learning_rate: float,
    dice: torch.Generator,
) -> None:
    events, device = graph.interactions, graph.interactions.strength.device
    pairs = torch.unique_consecutive(events.user_index * graph.item_count + events.item_index)
    reach = torch.cumsum((events.strength * decay(events.age_days, half_life_days)).double(), 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / STEPS)
        drawn = torch.rand(EVENTS_PER_STEP, generator=dice, device=device, dtype=torch.float64) * reach[-1]
        event = torch.searchsorted(reach, drawn).clamp(max=len(reach) - 1)
        user, item, age = events.user_index[event], events.item_index[event], events.age_days[event]
        other = torch.randint(graph.item_count, (EVENTS_PER_STEP,), generator=dice, device=device)
        pair = user * graph.item_count + other
        is_new = pairs[torch.searchsorted(pairs, pair).clamp(max=len(pairs) - 1)] != pair
        vector, wanted, unwanted = model.users(user, age), model.item(item), model.item(other)
        bias, other_bias = model.biases(item, age), model.biases(other, age)
        margin = (vector * (wanted - unwanted)).sum(1) + bias - other_bias
        size = (vector.square() + wanted.square() + unwanted.square()).sum(1) + bias.square() + other_bias.square()
        loss = ((ridge * size - logsigmoid(margin)) * is_new).sum() / EVENTS_PER_STEP
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

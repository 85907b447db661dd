"""Any network of this package with fast adaptation: users and items with few events get vectors of their own at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from models.graph import Graph
from models.networks.adaptation import Adaptation, Episode, Pairs, meta_learn
from models.networks.training import NetworkFactors, fit_network
from models.settings import ModelSettings

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = get_args(Side)
MOST_EVENTS = 5  # that a newcomer has
ROUNDS = 60
SHARE = 0.25  # of the users, or items, that pretend to be new in an episode


@dataclass(frozen=True)
class Pretence:
    """A graph in which some users or items have only just come."""

    graph: Graph
    newcomers: Tensor  # int64 [B], ascending
    first: Pairs
    later: Pairs


def pretend(graph: Graph, side: Side, newcomers: Tensor, most: int, dice: torch.Generator) -> Pretence:
    """Leaves each newcomer (int64 [B], ascending) the first 0 to `most` of its pairs, as if they were of yesterday."""
    events, count = graph.interactions, graph.user_count if side == "user" else graph.item_count
    mine, other = (events.user_index, events.item_index) if side == "user" else (events.item_index, events.user_index)
    row = torch.full((count,), -1, device=mine.device)
    row[newcomers] = torch.arange(len(newcomers), device=mine.device)
    chosen = torch.nonzero(row[mine] >= 0).flatten()
    chosen = chosen[torch.randperm(len(chosen), generator=dice, device=chosen.device)]
    chosen = chosen[torch.argsort(events.age_days[chosen], descending=True, stable=True)]
    chosen = chosen[_firsts(mine[chosen] * max(graph.user_count, graph.item_count) + other[chosen])]
    chosen = chosen[torch.argsort(row[mine[chosen]], stable=True)]
    met = Pairs(row[mine[chosen]], other[chosen])
    start = torch.searchsorted(met.row, torch.arange(len(newcomers), device=row.device))
    rank = torch.arange(len(chosen), device=row.device) - start[met.row]
    known = torch.randint(most + 1, (len(newcomers),), generator=dice, device=row.device)
    given = rank < known[met.row]
    kept = row[mine] < 0
    kept[chosen[given]] = True
    fresh = events.where(kept)
    age = torch.where((row[mine] >= 0)[kept], 1, fresh.age_days)
    parts = (Pairs(met.row[mask], met.other[mask]) for mask in (given, ~given))
    return Pretence(replace(graph, interactions=replace(fresh, age_days=age)), newcomers, *parts)


def _firsts(values: Tensor) -> Tensor:
    """Where each distinct value stands first, in order of place."""
    _, place = torch.unique(values, return_inverse=True)
    first = torch.full((int(place.max()) + 1 if len(place) else 0,), len(values), device=values.device)
    return first.scatter_reduce_(0, place, torch.arange(len(values), device=values.device), "amin").sort().values


def fit_adapted(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    season: float = 0.0,
    rounds: int = ROUNDS,
    *,
    name: str,
    **told: Any,
) -> Callable[[Graph], NetworkFactors]:
    """`fit_network`, then learns how users with few events, and items new since then, are adapted to these events."""
    refresh: Any = fit_network(graph, horizon_days, settings, half_life, season, name=name, **told)
    return with_adaptation(refresh, graph, settings.seed, rounds)


def with_adaptation(
    refresh: Callable[[Graph], NetworkFactors], graph: Graph, seed: int = 0, rounds: int = ROUNDS
) -> Callable[[Graph], NetworkFactors]:
    """A network that was learned from the graph, and after it what `Adaptation` learns from pretences on the same graph."""
    learned = refresh(graph)
    met = torch.bincount(graph.interactions.item_index, minlength=graph.item_count) > 0
    learned.model.inputs.known[learned.view.kinds["item"]] &= met  # else only what others than these were chosen says
    dice = torch.Generator(learned.users.device).manual_seed(seed)
    adaptations = {}
    for side in SIDES:
        episodes = _episodes(learned, refresh, side, rounds, dice)
        adaptations[side] = meta_learn(Adaptation(learned.users.shape[1] + 1).to(learned.users.device), episodes)
    return lambda now: adapted(refresh(now), adaptations)


@dataclass(frozen=True)
class Adapted(NetworkFactors):
    """A network's vectors with a component more, the weight of the trend: u = [z_u, 1], i = [z_i, trend_i] unless adapted."""

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        scores = self.model.scores(self.view, users, self.users[users], self.items)
        return scores - self.model.shared(self.view)  # which is in the vectors


@torch.no_grad()
def _widened(factors: NetworkFactors) -> dict[Side, Tensor]:
    """float32 [U, D + 1] and [I, D + 1]."""
    trend = factors.model.shared(factors.view)[:, None]
    users, items = factors.users, factors.items
    return {"user": torch.cat([users, torch.ones_like(users[:, :1])], 1), "item": torch.cat([items, trend], 1)}


@torch.no_grad()
def adapted(factors: NetworkFactors, adaptations: dict[Side, Adaptation]) -> Adapted:
    """New vectors for users with at most MOST_EVENTS pairs, and for items without a vector of their own."""
    graph, inputs, events = factors.view.graph, factors.model.inputs, factors.view.graph.interactions
    pairs = torch.unique(events.user_index * graph.item_count + events.item_index)
    user, item = pairs // graph.item_count, pairs % graph.item_count
    few = torch.bincount(user, minlength=graph.user_count) <= MOST_EVENTS
    new = ~inputs.known[factors.view.kinds["item"]]
    vectors = _widened(factors)
    users, items = vectors["user"].clone(), vectors["item"].clone()
    users[few] = adaptations["user"](users[few], vectors["item"], _first(user, item, few))
    items[new] = adaptations["item"](items[new], vectors["user"], _first(item, user, new))
    return Adapted(factors.name, factors.view, factors.model, users, items)


def _first(mine: Tensor, other: Tensor, newcomer: Tensor) -> Pairs:
    """All pairs of the newcomers (bool), rows counted among them."""
    kept = newcomer[mine]
    return Pairs((newcomer.cumsum(0) - 1)[mine[kept]], other[kept])


def _episodes(
    learned: NetworkFactors, refresh: Callable[[Graph], NetworkFactors], side: Side, rounds: int, dice: torch.Generator
) -> Iterator[Episode]:
    graph, inputs = learned.view.graph, learned.model.inputs
    events, place = graph.interactions, learned.view.kinds[side]
    everyone = torch.unique(events.user_index if side == "user" else events.item_index)
    for _ in range(rounds):
        drawn = torch.randperm(len(everyone), generator=dice, device=dice.device)[: max(1, int(SHARE * len(everyone)))]
        newcomers = everyone[drawn].sort().values
        pretence = pretend(graph, side, newcomers, MOST_EVENTS, dice)
        with _without_own(inputs.known, newcomers + place.start):
            seen = refresh(pretence.graph)
        vectors = _widened(seen)
        starts, others = vectors[side][newcomers], vectors["item" if side == "user" else "user"]
        yield Episode(starts, others, pretence.first, pretence.later, rivals=side == "item")


@contextmanager
def _without_own(known: Tensor, nodes: Tensor) -> Iterator[None]:
    """Nodes that the network takes for new."""
    before = known.clone()
    known[nodes] = False
    try:
        yield
    finally:
        known.copy_(before)

"""Items that a user did not choose, to learn against. Never the user's own, never one that cannot be had.

    draw(catalogue, user [N], item [N], count, dice, score) → Drawn

item: the positives of the rows; score: (rows int64 [N], items int64 [N, P]) → float [N, P], read by `hard` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf

import torch
from torch import Tensor

from models.graph import Graph
from models.networks.sampling import drawn
from models.propagation import ranges

ROUNDS = 8  # own items are drawn anew so often, then left out
BETA = 0.75  # word2vec's
POOL = 64

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Catalogue:
    """What can be drawn, and what each user has."""

    pairs: Tensor  # int64 [P], user · items + item, ascending: what each user has
    live: Tensor  # bool [I]
    popularity: Tensor  # float64 [I]

    @classmethod
    def build(cls, user: Tensor, item: Tensor, live: Tensor, weight: Tensor | None = None) -> Catalogue:
        """From positives (int64 [E], in any order); popularity is the sum of their weights (float [E], None = 1 each).

        live: bool [I]. Raises ValueError where nothing is live.
        """
        if not live.any():
            raise ValueError(f"none of {len(live)} items is live: nothing can be drawn")
        size = torch.ones_like(item, dtype=torch.float64) if weight is None else weight.double()
        popularity = torch.zeros(len(live), dtype=torch.float64, device=live.device).index_add_(0, item, size)
        return cls(torch.unique(user * len(live) + item), live, popularity)

    def owns(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether the user has the item, elementwise."""
        if not len(self.pairs):
            return torch.zeros_like(item, dtype=torch.bool)
        pair = user * len(self.live) + item
        return self.pairs[torch.searchsorted(self.pairs, pair).clamp(max=len(self.pairs) - 1)] == pair

    def odds(self, beta: float) -> Tensor:
        """popularity^β over live items, summing to 1: float64 [I]. Where no live item ever sold, all are alike."""
        odds = torch.where(self.live, self.popularity**beta, 0.0)
        odds = odds if odds.sum() > 0 else self.live.double()
        return odds / odds.sum()


@dataclass(frozen=True)
class Drawn:
    """Negatives, and how likely it was to draw them."""

    item: Tensor  # int64 [N, K], -1 = none found
    log_q: Tensor | None  # float32 [N, 1+K], of the positive among all items, then of each negative given its user

    def masked(self, score: Tensor) -> Tensor:
        """Scores (float [N, K]) with −inf where there is no item, as the losses want them; clamp item at 0 to look it up."""
        return score.masked_fill(self.item < 0, -inf)


def weighted(
    catalogue: Catalogue,
    user: Tensor,
    item: Tensor,
    count: int,
    dice: torch.Generator,
    score: Score | None = None,
    *,
    beta: float,
) -> Drawn:
    """Drawn with replacement by popularity^β over live items: 0 = evenly, 1 = as they sell (Mikolov et al. 2013)."""
    odds = catalogue.odds(beta)
    found = drawn(odds, len(user) * count, dice).view(len(user), count)
    for _ in range(ROUNDS):
        own = torch.nonzero(_forbidden(catalogue, user, item, found).flatten()).squeeze(1)
        if not len(own):
            break
        found.view(-1)[own] = drawn(odds, len(own), dice)
    found = found.masked_fill(_forbidden(catalogue, user, item, found), -1)
    return Drawn(found, _log_q(catalogue, odds, user, item, found))


def hard(
    catalogue: Catalogue,
    user: Tensor,
    item: Tensor,
    count: int,
    dice: torch.Generator,
    score: Score | None = None,
    *,
    beta: float = 0.0,
    pool: int = POOL,
) -> Drawn:
    """The highest scored of `pool` drawn by popularity^β, distinct (as Ying et al. 2018, arXiv 1806.01973, mine by rank)."""
    if score is None:
        raise ValueError("hard negatives are the highest scored: pass score")
    found = torch.sort(weighted(catalogue, user, item, max(pool, count), dice, beta=beta).item, 1).values
    found[:, 1:][found[:, 1:] == found[:, :-1]] = -1
    with torch.no_grad():
        rows = torch.arange(len(user), device=user.device)
        scores = score(rows, found.clamp(min=0)).masked_fill(found < 0, -inf)
    return Drawn(found.gather(1, scores.topk(count, dim=1).indices), None)


def in_batch(
    catalogue: Catalogue,
    user: Tensor,
    item: Tensor,
    count: int,
    dice: torch.Generator,
    score: Score | None = None,
) -> Drawn:
    """The positives of `count` other rows (at most N − 1), so drawn as they sell; log q is that of the popularity."""
    rows = len(user)
    shift = torch.randperm(max(rows - 1, 0), generator=dice, device=user.device)[:count] + 1
    found = item[(torch.arange(rows, device=user.device)[:, None] + shift) % rows]
    found = found.masked_fill(_forbidden(catalogue, user, item, found) | ~catalogue.live[found], -1)
    return Drawn(found, _log_q(catalogue, catalogue.odds(1.0), user, item, found))


NEGATIVES: dict[str, Callable[..., Drawn]] = {
    "uniform": partial(weighted, beta=0.0),
    "popularity": partial(weighted, beta=BETA),
    "hard": hard,
    "in_batch": in_batch,
}


def training_edges(graph: Graph, event_types: Sequence[str]) -> Graph:
    """The graph with events of the named types only, such as click and purchase; none named = all.

    Raises ValueError where a name is not among the graph's event types.
    """
    if not event_types:
        return graph
    unknown = sorted(set(event_types) - set(graph.event_types))
    if unknown:
        raise ValueError(f"no events of type {', '.join(unknown)}; there are {', '.join(graph.event_types)}")
    events = graph.interactions
    wanted = torch.tensor([name in event_types for name in graph.event_types], device=events.event_type_index.device)
    return replace(graph, interactions=events.where(wanted[events.event_type_index]))


def _forbidden(catalogue: Catalogue, user: Tensor, item: Tensor, found: Tensor) -> Tensor:
    """bool [N, K]: the row's positive, or another item of its user."""
    return (found == item[:, None]) | catalogue.owns(user[:, None], found)


def _log_q(catalogue: Catalogue, odds: Tensor, user: Tensor, item: Tensor, found: Tensor) -> Tensor:
    """ln q of the positives, and of what was found ln(q / (1 − Σ q over the user's own)): float32 [N, 1+K]."""
    items = len(catalogue.live)
    start, stop = torch.searchsorted(catalogue.pairs, torch.stack([user, user + 1]) * items)
    row, position = ranges(start, stop)
    own = torch.zeros_like(user, dtype=torch.float64).index_add_(0, row, odds[catalogue.pairs[position] % items])
    own = own + odds[item] * ~catalogue.owns(user, item)
    negative = odds[found.clamp(min=0)] / (1 - own).clamp(min=1e-12)[:, None]
    return torch.cat([odds[item][:, None], negative], 1).clamp(min=1e-30).log().float()

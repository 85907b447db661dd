"""One origin of a backtest: a graph as of a date, what happened in the horizon after it, and what lists are worth there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from models.baselines import segment_popularity
from models.graph import Graph
from models.metrics import METRICS, coverage, diversity, hits, novelty, popularity_lift
from models.network import served_lists
from models.ranking import Ranker, top_k

KS = (10, 12, 20)
MOST_USERS = 10_000  # of one origin, drawn at random
RARE_DAYS, RARE_SALES = 60, 5  # a rare item is known and has sold at most so often in the last days
SHIFT_DAYS = 28


@dataclass(frozen=True)
class Origin:
    """The graph as of a date and the distinct pairs of known users and live items in the horizon after it."""

    graph: Graph
    horizon_days: int
    user: Tensor  # int64 [N]
    item: Tensor  # int64 [N]

    @property
    def days(self) -> Tensor:
        """Days with events of each user: int64 [U]."""
        events = self.graph.interactions
        visits = torch.unique(events.user_index * (self.graph.oldest_days + 1) + events.age_days)
        return torch.bincount(visits // (self.graph.oldest_days + 1), minlength=self.graph.user_count)

    @property
    def rare(self) -> Tensor:
        """bool [I]."""
        events = self.graph.interactions
        recent = events.item_index[events.age_days <= RARE_DAYS]
        sold = torch.bincount(recent, minlength=self.graph.item_count)
        return self.graph.live_items & (sold <= RARE_SALES)

    @property
    def shift(self) -> float:
        """How unlike the last four weeks the horizon sells: total variation between the items' shares, 0 to 1."""
        events = self.graph.interactions
        before, after = (
            torch.bincount(item, minlength=self.graph.item_count).double()
            for item in (events.item_index[events.age_days <= SHIFT_DAYS], self.item)
        )
        return float((before / before.sum().clamp(min=1) - after / after.sum().clamp(min=1)).abs().sum() / 2)


@dataclass(frozen=True)
class Stratum:
    """What counts as truth, and which items may be listed (None = all live)."""

    name: str
    user: Tensor  # int64 [N]
    item: Tensor  # int64 [N]
    eligible: Tensor | None = None  # bool [I]


def strata(origin: Origin, list_name: str, seed: int = 0) -> Iterator[Stratum]:
    """All pairs that a list can find, then parts of them. In `discover` only pairs new to the user count."""
    graph, events = origin.graph, origin.graph.interactions
    everyone = torch.unique(origin.user)
    drawn = everyone[torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))[:MOST_USERS]]
    kept = torch.isin(origin.user, drawn)
    user, item = origin.user[kept], origin.item[kept]
    seen = torch.isin(user * graph.item_count + item, events.user_index * graph.item_count + events.item_index)
    if list_name == "for_you":
        yield Stratum("all", user, item)
        yield Stratum("repeat", user[seen], item[seen])
        yield Stratum("discovery", user[~seen], item[~seen])
    else:
        user, item = user[~seen], item[~seen]
        yield Stratum("all", user, item)
    unsold = torch.bincount(events.item_index, minlength=graph.item_count) == 0
    yield Stratum("new items", user[unsold[item]], item[unsold[item]])
    rare = origin.rare
    yield Stratum("rare items", user[rare[item]], item[rare[item]], rare)


def measure(rankers: dict[str, Ranker], origin: Origin, repeats: bool) -> tuple[pl.DataFrame, dict[str, float]]:
    """Every metric of every user with something to find, and the share of the live items that each list covers.

    rankers: one per list. The frame has the columns list, stratum, user_index, days and one per metric and k.
    """
    k, covered, frames = max(KS), {}, []
    days, live = origin.days, int(origin.graph.live_items.sum())
    for list_name in served_lists(repeats):
        found: tuple[Tensor, Tensor] | None = None
        for stratum in strata(origin, list_name):
            users = torch.unique(stratum.user)
            if found and stratum.eligible is None:
                items = found[1][torch.searchsorted(found[0], users)]
            else:
                items = _listed(rankers[list_name], origin.graph, users, k, list_name, repeats, stratum.eligible)
            values = _accuracy(items, users, stratum, origin.graph.item_count)
            if found is None:
                found, covered[list_name] = (users, items), coverage(items, live)
                values |= {
                    f"novelty@{k}": novelty(items, origin.graph),
                    f"diversity@{k}": diversity(items, origin.graph),
                    f"popularity_lift@{k}": popularity_lift(items, users, origin.graph),
                }
            columns = {"user_index": users.numpy(), "days": days[users].numpy()}
            columns |= {name: value.numpy().astype("float32") for name, value in values.items()}
            frames.append(
                pl.DataFrame(columns).select(
                    pl.lit(list_name).alias("list"), pl.lit(stratum.name).alias("stratum"), pl.all()
                )
            )
    return pl.concat(frames, how="diagonal"), covered


def _accuracy(items: Tensor, users: Tensor, stratum: Stratum, item_count: int) -> dict[str, Tensor]:
    values = {}
    for k in KS:
        hit, count = hits(items[:, :k], users, stratum.user, stratum.item, item_count)
        values |= {f"{name}@{k}": metric(hit, count) for name, metric in METRICS.items()}
    return values


def _listed(
    ranker: Ranker, graph: Graph, users: Tensor, k: int, list_name: str, repeats: bool, eligible: Tensor | None
) -> Tensor:
    """As published: users without history get the popularity of their segment. int64 [U, k]."""
    known = torch.isin(users, graph.interactions.user_index)
    items = torch.full((len(users), k), -1)
    for source, part in ((ranker, known), (segment_popularity(graph), ~known)):
        if part.any():
            items[part], _ = top_k(source, graph, users[part], k, list_name, repeats, eligible)
    return items

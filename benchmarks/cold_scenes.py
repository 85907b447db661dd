"""Users and items on their first days: what a model may have seen of them, and what they turned out to like or be liked by."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.backtests import BENCHMARKS, input_folder
from models.graph import Graph, Interactions
from tasks.graph import load_graph
from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.warehouse import open_warehouse

WITHHELD, WITHHELD_EVENTS = 0.1, 5  # share of the items with at least so many events whose events nobody is shown
ITEM_SHOTS = (0, 1, 5)


@dataclass(frozen=True)
class Source:
    """Origins are counted back from `as_of` in horizons; `network` is what its networks are told beside the defaults."""

    as_of: date
    horizon_days: int
    origins: tuple[int, ...]
    shots: tuple[int, ...]  # first events shown of a new user
    least: int  # pairs of a new user in the horizon
    learn_days: int  # horizon that networks learn to foresee; longer than the history = they learn its edges
    half_life: float  # in these
    rounds: int  # of meta-learning
    network: dict[str, Any] = field(default_factory=dict)


SOURCES = {
    "ml-100k": Source(
        date(1998, 4, 23),
        28,
        (1, 2, 3, 4, 5),
        (0, 1, 2, 5),
        10,
        3650,
        4 * 28 / 3650,
        30,
        {"epochs": 60, "temperature": 0.2},
    ),
    "lastfm-2k": Source(date(2011, 5, 2), 90, (1, 2, 3, 4), (0, 1, 2), 3, 90, 13.0, 30, {"dates": 8}),
}


@dataclass(frozen=True)
class Case:
    """Who is judged on what: truth pairs, the graph shown, the graph whose pairs are not listed again, what may be listed."""

    stratum: str
    user: Tensor  # int64 [N]
    item: Tensor  # int64 [N]
    shown: Graph
    seen: Graph
    eligible: Tensor  # bool [I]


def read(name: str) -> Graph:
    """The source's graph as of its last date, made as a daily run makes it."""
    benchmark, as_of = BENCHMARKS[name], SOURCES[name].as_of
    source = load_source(benchmark.source)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        land(home, source, input_folder(benchmark, home / "input"), as_of)
        load(home, source.model_copy(update={"max_reject_share": 1.0}), as_of, datetime.now(UTC), "benchmark")
        build_staging(home, source, as_of)
        build_graph(home, source, as_of)
        with open_warehouse(home) as warehouse:
            return load_graph(warehouse, as_of, tuple(source.event_strength))


def scene(graph: Graph, back_days: int, source: Source, seed: int = 0) -> tuple[Graph, Iterator[Case]]:
    """What was known at the date without the events of withheld items, to learn from; and the cases, one after the other.

    New users are those whose first event lies in the horizon; of these a few are shown as if they were of the day before,
    first days first, in random order within a day. New items are those first met in the horizon with facts known before.
    """
    dice = torch.Generator().manual_seed(seed)
    past = graph.back(back_days)
    withheld = _withheld(past, dice)
    trained = replace(past, interactions=past.interactions.where(~withheld[past.interactions.item_index]))
    return trained, _cases(graph, past, trained, withheld, back_days, source, dice)


def _cases(
    graph: Graph, past: Graph, trained: Graph, withheld: Tensor, back_days: int, source: Source, dice: torch.Generator
) -> Iterator[Case]:
    events, count = past.interactions, graph.item_count
    coming = graph.interactions.where(
        (graph.interactions.age_days <= back_days) & (graph.interactions.age_days > back_days - source.horizon_days)
    )
    new = coming.where(~torch.isin(coming.user_index, events.user_index) & past.live_items[coming.item_index])
    new = _distinct(new.where(~withheld[new.item_index]), count, dice)
    new = new.where(torch.bincount(new.user_index)[new.user_index] >= source.least)
    rank, most = _ranks(new.user_index), max(source.shots)
    first = replace(new.where(rank < most), age_days=torch.ones_like(rank[rank < most]).int())
    later = new.where(rank >= most)
    for shots in source.shots:
        shown = joined(trained, first.where(rank[rank < most] < shots))
        named = f"new users, {shots} events"
        yield Case(named, later.user_index, later.item_index, shown, joined(trained, first), ~withheld)

    user, item = graph.targets(source.horizon_days, back_days)
    seen = torch.isin(user * count + item, events.user_index * count + events.item_index)
    known = torch.isin(user, trained.interactions.user_index) & ~seen
    asked = known & withheld[item] & past.live_items[item]
    hidden = events.where(withheld[events.item_index])
    hidden = hidden.where(torch.argsort(hidden.item_index * 2**20 + hidden.age_days, stable=True))
    for shots in ITEM_SHOTS:
        shown = joined(trained, hidden.where(_ranks(hidden.item_index) < shots))
        yield Case(f"withheld items, {shots} events", user[asked], item[asked], shown, past, withheld)

    met = torch.zeros_like(withheld)
    met[item] = True
    met[events.item_index] = False
    told = torch.zeros_like(withheld)
    told[past.item_entities.source_index] = True
    born = met & told
    asked = known & born[item]
    alive = replace(trained, item_age_days=torch.where(born, 1, trained.item_age_days))
    yield Case("new items", user[asked], item[asked], alive, alive, born)


def joined(graph: Graph, more: Interactions) -> Graph:
    """The graph with further events."""
    events = {name: torch.cat([column, vars(more)[name]]) for name, column in vars(graph.interactions).items()}
    key = (events["user_index"] * graph.item_count + events["item_index"]) * 2**20 + events["age_days"]
    return replace(graph, interactions=Interactions(**events).where(torch.argsort(key, stable=True)))


def _withheld(past: Graph, dice: torch.Generator) -> Tensor:
    """bool [I]."""
    often = torch.bincount(past.interactions.item_index, minlength=past.item_count) >= WITHHELD_EVENTS
    often = torch.nonzero(often & past.live_items).flatten()
    chosen = torch.zeros(past.item_count, dtype=torch.bool)
    chosen[often[torch.randperm(len(often), generator=dice)[: int(WITHHELD * len(often))]]] = True
    return chosen


def _distinct(events: Interactions, item_count: int, dice: torch.Generator) -> Interactions:
    """The first event of each pair, by user, then as they came; days in random order within."""
    events = events.where(torch.randperm(len(events.age_days), generator=dice))
    events = events.where(torch.argsort(events.age_days, descending=True, stable=True))
    order = torch.argsort(events.user_index * item_count + events.item_index, stable=True)
    sorted_pairs = (events.user_index * item_count + events.item_index)[order]
    opens = torch.ones_like(sorted_pairs, dtype=torch.bool)
    opens[1:] = sorted_pairs[1:] != sorted_pairs[:-1]
    events = events.where(order[opens].sort().values)
    return events.where(torch.argsort(events.user_index, stable=True))


def _ranks(group: Tensor) -> Tensor:
    """Places within groups, which are sorted: int64 [N]."""
    return torch.arange(len(group)) - torch.searchsorted(group, group)

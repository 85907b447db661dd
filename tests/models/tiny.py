"""Small graphs written by hand, for tests whose answers are known by construction."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta

import torch

from models.graph import NEVER, Edges, Graph, Interactions
from models.kernels import week_phase, year_phase

AS_OF = date(2024, 1, 1)


def edges(triples: Iterable[tuple[int, int]] = (), age_days: int = NEVER) -> Edges:
    """(source, target) edges of relation 0 and weight 1."""
    pairs = torch.tensor(list(triples), dtype=torch.int64).reshape(-1, 2).T.contiguous()
    count = pairs.shape[1]
    ages = torch.full((count,), age_days, dtype=torch.int32)
    return Edges(pairs[0], pairs[1], torch.zeros(count, dtype=torch.int64), torch.ones(count), ages)


def tiny_graph(
    events: Iterable[tuple[int, ...]],
    *,
    users: int = 0,
    items: int = 0,
    event_types: tuple[str, ...] = ("purchase",),
    item_entities: Edges | None = None,
    as_of: date = AS_OF,
) -> Graph:
    """A graph of (user, item, age_days[, event type]) events; items are known since their first event, else not at all."""
    rows = sorted({(*event, 0)[:4] for event in events}, key=lambda row: (row[0], row[1], row[2], row[3]))
    columns = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4).T.contiguous()
    days = [as_of - timedelta(days=row[2]) for row in rows]
    age_days = columns[2].to(torch.int32)
    interactions = Interactions(
        columns[0],
        columns[1],
        columns[3],
        age_days,
        torch.ones(len(rows)),
        torch.tensor([year_phase(day) for day in days]),
        torch.tensor([week_phase(day) for day in days]),
        torch.full_like(age_days, 24),
    )
    users = max([users, *(row[0] + 1 for row in rows)])
    items = max([items, *(row[1] + 1 for row in rows)])
    known_since = torch.zeros(items, dtype=torch.int32)
    known_since.scatter_reduce_(0, columns[1], age_days, "amax")
    entities = item_entities or edges()
    return Graph(
        as_of=as_of,
        user_count=users,
        item_count=items,
        entity_count=int(entities.target_index.max()) + 1 if len(entities.weight) else 0,
        event_types=event_types,
        relations=("is",),
        interactions=interactions,
        item_age_days=known_since,
        item_retired_age_days=torch.full((items,), -NEVER, dtype=torch.int32),
        item_features=torch.zeros(items, 0),
        user_features=torch.zeros(users, 0),
        user_segment=torch.zeros(users, dtype=torch.int64),
        item_entities=entities,
        user_entities=edges(),
        entity_entities=edges(),
        user_users=edges(),
    )


def with_items_known(graph: Graph, age_days: int = 1000) -> Graph:
    """The same graph, every item launched that long ago."""
    return replace(graph, item_age_days=torch.full_like(graph.item_age_days, age_days))


def two_tastes(users: int, items_each: int) -> Graph:
    """Even users buy a few of the even items, odd users of the odd ones, in the last hundred days; all items are known."""
    dice = random.Random(1)
    events = {
        (u, 2 * dice.randrange(items_each) + u % 2, dice.randint(1, 100)) for u in range(users) for _ in range(10)
    }
    return with_items_known(tiny_graph(events, users=users, items=2 * items_each))

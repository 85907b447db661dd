"""The published lists of one ranker as columns, with a reason for each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.baselines import segment_popularity
from models.diversity import POOL, diversify
from models.graph import Graph
from models.ranking import Ranker, top_k

NONE = -1
USERS_PER_CHUNK = 1024


@dataclass(frozen=True)
class Lists:
    """One row per user and rank, ordered by user and rank. Index −1 = none."""

    user_index: Tensor  # int64 [N]
    rank: Tensor  # int64 [N], from 1
    item_index: Tensor  # int64 [N]
    score: Tensor  # float32 [N], does not rise with rank
    ranker: list[str]  # [N]
    reason: list[str]  # [N]: taste, fact, repeat, trend, season, context or segment
    reason_item_index: Tensor  # int64 [N]
    reason_entity_index: Tensor  # int64 [N]


@dataclass(frozen=True)
class Diversity:
    """How much items of a list may not resemble each other, 0 to 1, and their directions: float32 [I, D], of length 1."""

    weight: float
    unit: Tensor


def lists(
    ranker: Ranker,
    graph: Graph,
    k: int,
    list_name: str,
    repeats: bool,
    phase: bool = True,
    diversity: Diversity | None = None,
) -> Lists:
    """min(k, eligible live items) rows for every user; users without known history get `segment_popularity`."""
    events = graph.interactions
    known = torch.zeros(graph.user_count, dtype=torch.bool, device=events.user_index.device)
    known[events.user_index] = True
    parts = [
        _rows(source, graph, torch.nonzero(users).squeeze(1), k, list_name, repeats, diversity)
        for source, users in ((ranker, known), (segment_popularity(graph, phase), ~known))
        if users.any()
    ]
    user = torch.cat([part.user_index for part in parts])
    order = torch.argsort(user, stable=True)
    columns = {}
    for name in Lists.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], Tensor):
            columns[name] = torch.cat(values)[order]
        else:
            flat = [value for part in values for value in part]
            columns[name] = [flat[position] for position in order.tolist()]
    return Lists(**columns)


def _rows(
    ranker: Ranker, graph: Graph, users: Tensor, k: int, list_name: str, repeats: bool, diversity: Diversity | None
) -> Lists:
    items, scores = top_k(ranker, graph, users, k * (POOL if diversity else 1), list_name, repeats)
    if diversity:
        parts = zip(items.split(USERS_PER_CHUNK), scores.split(USERS_PER_CHUNK), strict=True)
        chosen = [diversify(*part, diversity.unit, diversity.weight, k) for part in parts]
        items, scores = (torch.cat(part) for part in zip(*chosen, strict=True))
    row, column = torch.nonzero(items >= 0, as_tuple=True)
    user, item = users[row], items[row, column]
    reason, reason_item, reason_entity = ranker.explain(user, item, list_name)
    return Lists(
        user, column + 1, item, scores[row, column], [ranker.name] * len(item), reason, reason_item, reason_entity
    )

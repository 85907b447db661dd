"""From scores to lists: exact top-K over live items, in bounded memory, ties by ascending item."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from models.graph import Graph
from models.propagation import offsets, ranges

LOWEST = torch.finfo(torch.float32).min  # what a ranker's −∞ counts as: last, yet on a list that has room
TIED_ROWS = 32  # at a time, to stay in the processor's cache
CHUNK_SCORES = 2**24  # float32 scores of one chunk of users: 64 MB

MOST_THREADS = 8  # each with a chunk of its own: bounds the memory on machines with many cores

Result = TypeVar("Result")


class Ranker(Protocol):
    """Whatever can order the items for users, as of one graph's date."""

    @property
    def name(self) -> str: ...

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I], higher is better, before any mask; the caller may write to it. users: int64 [B], ascending."""
        ...

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """Of each pair [N]: the reason, and the item and the entity it points to (int64 [N], −1 = none)."""
        ...


def top_k(
    ranker: Ranker,
    graph: Graph,
    users: Tensor,
    k: int,
    list_name: str,
    repeats: bool,
    eligible_items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The best min(k, eligible) live items of each user, best first, ties by ascending item index.

    Returns items int64 [U, k] padded with −1 and scores float32 [U, k] padded with −∞. `discover`, and both lists where
    repeats are off, leave out every item the user has any event with. users: int64 [U], ascending; eligible_items: bool
    [I], None = all.
    """
    seen_left_out = list_name == "discover" or not repeats
    events = graph.interactions
    user_offsets = offsets(events.user_index, graph.user_count)
    width = min(k, graph.item_count)
    dead = ~(graph.live_items if eligible_items is None else graph.live_items & eligible_items)

    def best_of(chunk: Tensor) -> tuple[Tensor, Tensor]:
        eligible = ranker.scores(chunk, list_name).clamp_(min=LOWEST).masked_fill_(dead, -torch.inf)
        if seen_left_out:
            row, event = ranges(user_offsets[chunk], user_offsets[chunk + 1])
            eligible[row, events.item_index[event]] = -torch.inf
        return best(eligible, width)

    items = torch.full((len(users), k), -1, dtype=torch.int64, device=users.device)
    scores = torch.full((len(users), k), -torch.inf, device=users.device)
    if len(users):
        found = in_threads(best_of, users.split(max(1, CHUNK_SCORES // max(1, graph.item_count))))
        scores[:, :width], items[:, :width] = (torch.cat(parts) for parts in zip(*found, strict=True))
    return items.masked_fill_(scores == -torch.inf, -1), scores


def in_threads(function: Callable[[Tensor], Result], parts: Sequence[Tensor]) -> list[Result]:
    """The function of each part, in their order, computed side by side: each part on one thread, so always the same bits."""
    with ThreadPoolExecutor(max_workers=min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, parts))


def best(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The highest values of each row and their columns, equal ones by ascending column: float32 and int64 [B, width].

    Exact however many are equal at the border of the list.
    """
    values, columns = scores.topk(min(width + 1, scores.shape[1]), dim=1)
    tied = torch.nonzero((values[:, width - 1] == values[:, -1]) & (values[:, -1] > -torch.inf)).squeeze(1)
    values, columns = values[:, :width], columns[:, :width]
    for part in tied.split(TIED_ROWS) if scores.shape[1] > width else ():
        border, rows = values[part, -1:], scores[part]
        above, level = rows > border, rows == border
        chosen = above | (level & (level.cumsum(1) <= width - above.sum(1, keepdim=True)))
        columns[part] = torch.nonzero(chosen)[:, 1].view(-1, width)
        values[part] = rows.gather(1, columns[part])
    by_column = columns.argsort(dim=1)
    by_value = values.gather(1, by_column).argsort(dim=1, descending=True, stable=True)
    order = by_column.gather(1, by_value)
    return values.gather(1, order), columns.gather(1, order)

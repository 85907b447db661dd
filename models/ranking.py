"""From scores to lists: exact top-K over live items, in bounded memory, ties by ascending item."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.graph import Graph
from models.propagation import offsets, ranges

CHUNK_SCORES = 2**24  # float32 scores of one chunk of users: 64 MB


class Ranker(Protocol):
    """Whatever can order the items for users, as of one graph's date."""

    @property
    def name(self) -> str: ...

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I], higher is better, before any mask. users: int64 [B], ascending."""
        ...

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """Of each pair [N]: the reason, and the item and the entity it points to (int64 [N], −1 = none)."""
        ...


def top_k(ranker: Ranker, graph: Graph, users: Tensor, k: int, list_name: str, repeats: bool) -> tuple[Tensor, Tensor]:
    """The best min(k, eligible) live items of each user, best first, ties by ascending item index.

    Returns items int64 [U, k] padded with −1 and scores float32 [U, k] padded with −∞. `discover`, and both lists where
    repeats are off, leave out every item the user has any event with. users: int64 [U], ascending.
    """
    seen_left_out = list_name == "discover" or not repeats
    events = graph.interactions
    user_offsets = offsets(events.user_index, graph.user_count)
    items = torch.full((len(users), k), -1, dtype=torch.int64, device=users.device)
    scores = torch.full((len(users), k), -torch.inf, device=users.device)
    width = min(k, graph.item_count)
    dead = ~graph.live_items
    start = 0
    for chunk in users.split(max(1, CHUNK_SCORES // max(1, graph.item_count))):
        key = _key(ranker.scores(chunk, list_name))
        key[:, dead] = NOT_ELIGIBLE
        if seen_left_out:
            row, event = ranges(user_offsets[chunk], user_offsets[chunk + 1])
            key[row, events.item_index[event]] = NOT_ELIGIBLE
        best = key.topk(width, dim=1).values
        found = best > NOT_ELIGIBLE
        stop = start + len(chunk)
        items[start:stop, :width] = torch.where(found, ITEM_MASK - (best & ITEM_MASK), -1)
        scores[start:stop, :width] = torch.where(found, _score(best), -torch.inf)
        start = stop
    return items, scores


NOT_ELIGIBLE = -(2**63)
ITEM_BITS = 31
ITEM_MASK = 2**ITEM_BITS - 1


def _key(scores: Tensor) -> Tensor:
    """int64 that orders by score, then by descending item: the float's bits made monotone above, the item below."""
    bits = (scores + 0.0).contiguous().view(torch.int32).long()  # + 0.0 turns -0.0 into 0.0
    monotone = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    item = torch.arange(scores.shape[1], device=scores.device)
    return (monotone << ITEM_BITS) + (ITEM_MASK - item)


def _score(key: Tensor) -> Tensor:
    monotone = key >> ITEM_BITS
    bits = torch.where(monotone < 0, -monotone - 2**31, monotone)
    return bits.to(torch.int32).view(torch.float32)

"""Item-item models: EASE, and cosine neighbours for catalogues of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from models.graph import Graph
from models.hops import Hop
from models.kernels import decay
from models.propagation import Adjacency, offsets, ranges, weighted_sums

EASE_RIDGE = 100.0  # λ
EASE_MOST_ITEMS = 15_000  # its dense inverse costs items³
KNN_NEIGHBOURS = 100
CHUNK_ITEMS = 512


def user_events(graph: Graph, users: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positions of the users' events in graph.interactions, and for each the user's position in `users`.

    start: where each user's events begin (int64 [U+1]), if at hand.
    """
    start = offsets(graph.interactions.user_index, graph.user_count) if start is None else start
    return ranges(start[users], start[users + 1])


def history_bags(
    graph: Graph, users: Tensor, half_life_days: float, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """√(Σ strength · 2^(−age/half-life)) of each pair that has events; the root keeps frequent pairs from ruling.

    Start of each user int64 [B+1]; item int64 and weight float32 [N] of each pair. start: as for `user_events`.
    """
    events = graph.interactions
    row, event = user_events(graph, users, start)
    weight = events.strength[event] * decay(events.age_days[event], half_life_days)
    pairs, pair = torch.unique_consecutive(row * graph.item_count + events.item_index[event], return_inverse=True)
    total = torch.zeros(len(pairs), device=weight.device).index_add_(0, pair, weight)
    return offsets(pairs // graph.item_count, len(users)), pairs % graph.item_count, total.sqrt_()


def history_weights(graph: Graph, users: Tensor, half_life_days: float) -> Tensor:
    """`history_bags` with 0 for all other pairs: float32 [B, I]."""
    start, item, weight = history_bags(graph, users, half_life_days)
    pairs = torch.zeros(len(users), graph.item_count, device=weight.device)
    pairs[torch.repeat_interleave(start.diff()), item] = weight
    return pairs


def sparse_weights(graph: Graph, half_life_days: float) -> Any:
    """`history_weights` of all users as a scipy CSR array; Any, because scipy's own types are not usable."""
    events = graph.interactions
    weight = (events.strength * decay(events.age_days, half_life_days)).cpu().numpy()
    pairs = events.user_index.cpu().numpy(), events.item_index.cpu().numpy()
    matrix = csr_array((weight, pairs), shape=(graph.user_count, graph.item_count))
    matrix.sum_duplicates()
    matrix.data = np.sqrt(matrix.data)
    return matrix


def ease_weights(graph: Graph, half_life_days: float, ridge: float = EASE_RIDGE, own: float = 0.0) -> Tensor:
    """B = I − P / diag(P) with P = (XᵀX + λI)⁻¹ (Steck 2019, arXiv 1905.03375): float32 [I, I], diagonal `own`.

    EASE has 0 there; more lifts what a user has bought before.
    """
    weights = sparse_weights(graph, half_life_days)
    regular = torch.from_numpy((weights.T @ weights).toarray()).to(graph.interactions.strength.device)
    regular.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular))
    return (inverse / -inverse.diagonal()).fill_diagonal_(own).contiguous()


def knn_weights(
    graph: Graph, half_life_days: float, count: int = KNN_NEIGHBOURS, shrinkage: float = 0.0, own: float = 0.0
) -> Hop:
    """x·y / (|x| |y| + shrinkage) of item columns: row = item, columns = the `count` items nearest to it.

    An item is its own neighbour with `own` times this weight.
    """
    weights = sparse_weights(graph, half_life_days)
    length = np.sqrt(weights.multiply(weights).sum(axis=0)).clip(1e-12)
    unit = weights.multiply(1 / length[None]).tocsc()
    width = min(count, graph.item_count)
    cosines, neighbours = [], []
    rows = np.empty((CHUNK_ITEMS, graph.item_count), unit.dtype)  # one buffer: fresh pages cost more than the product
    for start in range(0, graph.item_count, CHUNK_ITEMS):
        chunk = unit[:, start : start + CHUNK_ITEMS].T @ unit
        cosine = torch.from_numpy(chunk.toarray(out=rows[: chunk.shape[0]]))
        if shrinkage:
            lengths = torch.from_numpy(length[start : start + CHUNK_ITEMS, None] * length)
            cosine *= lengths / (lengths + shrinkage)
        cosine.diagonal(start).mul_(own)
        nearest = cosine.topk(width, dim=1)
        cosines.append(nearest.values)
        neighbours.append(nearest.indices)
    row = torch.arange(graph.item_count).repeat_interleave(width)
    adjacency = Adjacency.build(row, torch.cat(neighbours).flatten(), graph.item_count, graph.item_count)
    return Hop(adjacency, torch.cat(cosines).flatten()).to(graph.interactions.strength.device)


@dataclass(frozen=True)
class Neighbours:
    """Σ over the user's items of their decayed weight times item-item weight."""

    name: str
    graph: Graph
    half_life_days: float
    weights: Tensor | Hop  # [I, I]; a hop's rows are the items scored, a matrix's rows the items of the history

    @cached_property
    def _user_start(self) -> Tensor:
        return offsets(self.graph.interactions.user_index, self.graph.user_count)

    def bags(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`history_bags` of the graph: items of a user ascend."""
        return history_bags(self.graph, users, self.half_life_days, self._user_start)

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        start, item, weight = self.bags(users)
        if isinstance(self.weights, Hop):  # a few edges lead from a history, many more to the items
            hop, items = self.weights.adjacency, self.graph.item_count
            pair, edge = ranges(hop.column_offsets[item], hop.column_offsets[item + 1])
            cell = torch.repeat_interleave(start.diff())[pair] * items + hop.row[edge]
            scores = torch.zeros(len(users) * items, device=weight.device)
            scores.index_add_(0, cell, weight[pair] * self.weights.weight[hop.by_column[edge]])
            return scores.view(len(users), items)
        return weighted_sums(item, start, weight, self.weights)  # histories are short: a dense product would add zeros

    def between(self, items: Tensor, history: Tensor) -> Tensor:
        """Weight of each item of a history (int64 [H]) for each of these (int64 [N]): float32 [N, H]."""
        if not isinstance(self.weights, Hop):
            return self.weights[history, items[:, None]]
        known, position = torch.unique(history, return_inverse=True)
        row, edge = ranges(*(self.weights.adjacency.row_offsets[items + step] for step in (0, 1)))
        column = self.weights.adjacency.column[edge]
        place = torch.searchsorted(known, column.long()).clamp(max=len(known) - 1)
        met = known[place] == column
        found = torch.zeros(len(items), len(known), device=items.device)
        found[row[met], place[met]] = self.weights.weight[edge[met]]
        return found[:, position]

    def mean_weight(self, live: Tensor) -> Tensor:
        """Mean weight of each item of a history for the live items (bool [I]): float32 [I]."""
        if not isinstance(self.weights, Hop):
            return self.weights[:, live].mean(1)
        weight = self.weights.weight * torch.repeat_interleave(live.float(), self.weights.adjacency.row_offsets.diff())
        sums = torch.zeros(len(live), device=live.device)
        return sums.index_add(0, self.weights.adjacency.column.long(), weight) / live.sum()

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """The item of the history that adds most to each pair; "trend" where none adds anything."""
        return explain_by_history(self.graph, self.half_life_days, self._toward, users, items)

    def _toward(self, items: Tensor) -> Tensor:
        """Weight of every item for these: float32 [N, I]."""
        if not isinstance(self.weights, Hop):
            return self.weights[:, items].T
        start = self.weights.adjacency.row_offsets
        row, edge = ranges(start[items], start[items + 1])
        dense = torch.zeros(len(items), self.graph.item_count, device=items.device)
        dense[row, self.weights.adjacency.column[edge]] = self.weights.weight[edge]
        return dense


def explain_by_history(
    graph: Graph, half_life_days: float, toward: Callable[[Tensor], Tensor], users: Tensor, items: Tensor
) -> tuple[list[str], Tensor, Tensor]:
    """The item of the history whose decayed weight times its weight toward each pair's item is highest, as the reason.

    toward: items [N] → weight of every item for each of these, float32 [N, I]. "trend" where no product is above 0.
    """
    cause = torch.full_like(items, -1)
    for start in range(0, len(users), CHUNK_ITEMS):
        part = slice(start, start + CHUNK_ITEMS)
        best, position = (history_weights(graph, users[part], half_life_days) * toward(items[part])).max(1)
        cause[part] = torch.where(best > 0, position, -1)
    pairs = zip(cause.tolist(), items.tolist(), strict=True)
    reasons = ["trend" if other < 0 else "repeat" if other == item else "taste" for other, item in pairs]
    return reasons, cause, torch.full_like(items, -1)

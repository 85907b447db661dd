"""One hop along edges: the weighted mean of what a node is linked to, as of a date."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.graph import Edges
from models.propagation import Adjacency, offsets, propagate, ranges


@dataclass(frozen=True)
class Hop:
    """Rows as weighted sums of columns; `hop(values)` is A @ values."""

    adjacency: Adjacency
    weight: Tensor  # float32 [E], no gradient

    def __call__(self, values: Tensor) -> Tensor:
        """values: float32 [C, D] → float32 [R, D]."""
        return propagate(self.adjacency, self.weight, values)

    def to(self, device: torch.device) -> Hop:
        """The same hop on another device."""
        moved = {name: tensor.to(device) for name, tensor in vars(self.adjacency).items()}
        return Hop(Adjacency(**moved), self.weight.to(device))


class Links:
    """Edges of one kind, sorted by source once, to hop along as of any earlier date."""

    def __init__(self, edges: Edges, source_count: int, target_count: int) -> None:
        order = torch.argsort(edges.source_index, stable=True)
        self.edges = Edges(**{name: column[order] for name, column in vars(edges).items()})
        self.source_count, self.target_count = source_count, target_count

    def __bool__(self) -> bool:
        return len(self.edges.weight) > 0

    def hop(self, back_days: int) -> Hop:
        """The mean over each source's targets known `back_days` earlier; 0 for sources without any."""
        weight = torch.where(self.edges.age_days > back_days, self.edges.weight, 0.0)
        return Hop(self._adjacency, row_shares(weight, self.edges.source_index, self.source_count))

    def hop_from(self, sources: Tensor, back_days: int) -> Hop:
        """The same for these sources only (int64 [B]), one row each."""
        start = offsets(self.edges.source_index, self.source_count)
        row, position = ranges(start[sources], start[sources + 1])
        known = self.edges.age_days[position] > back_days
        row, position = row[known], position[known]
        adjacency = Adjacency.build(row, self.edges.target_index[position], len(sources), self.target_count)
        return Hop(adjacency, row_shares(self.edges.weight[position], row, len(sources)))

    @cached_property
    def _adjacency(self) -> Adjacency:
        return Adjacency.build(self.edges.source_index, self.edges.target_index, self.source_count, self.target_count)


def row_shares(weight: Tensor, row: Tensor, row_count: int) -> Tensor:
    """Weights divided by the sum of their row. weight: float32 [..., E]; row: int64 [E]."""
    total = torch.zeros(*weight.shape[:-1], row_count, device=weight.device).index_add_(-1, row, weight)
    return weight / total.clamp(min=1e-30)[..., row]

"""Weighted sums over edges, with a backward pass as fast as the forward one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class Adjacency:
    """Edges row ← column in row order, and the way to read them in column order. Duplicate edges add up."""

    row_offsets: Tensor  # int32 [R+1]
    column: Tensor  # int32 [E], sorted by row
    column_offsets: Tensor  # int32 [C+1]
    row: Tensor  # int32 [E], sorted by column
    by_column: Tensor  # int32 [E], position in row order of each edge in column order

    @classmethod
    def build(cls, row: Tensor, column: Tensor, row_count: int, column_count: int) -> Adjacency:
        """From edges sorted by row. row, column: int64 [E]."""
        by_column = torch.argsort(column, stable=True)
        tensors = offsets(row, row_count), column, offsets(column[by_column], column_count), row[by_column], by_column
        return cls(*(tensor.int() for tensor in tensors))


def offsets(sorted_index: Tensor, count: int) -> Tensor:
    """Start of each of `count` groups in a sorted index, and the end of the last: int64 [count + 1]."""
    return torch.searchsorted(sorted_index, torch.arange(count + 1, device=sorted_index.device))


def ranges(start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
    """Every position of each range start..stop: which range it is in, and the position. int64 each."""
    count = stop - start
    row = torch.repeat_interleave(torch.arange(len(start), device=start.device), count)
    within = torch.arange(len(row), device=start.device) - (torch.cumsum(count, 0) - count)[row]
    return row, start[row] + within


def propagate(adjacency: Adjacency, weight: Tensor, values: Tensor) -> Tensor:
    """Σ over edges of weight · values[column], for every row: A @ X without building A.

    weight: float32 [E] in row order (no gradient); values: float32 [C, D] → float32 [R, D].
    """
    return _Propagate.apply(values, weight, adjacency)  # pyright: ignore[reportReturnType]


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, adjacency: Adjacency) -> Tensor:
        ctx.weight, ctx.adjacency = weight, adjacency
        return weighted_sums(adjacency.column, adjacency.row_offsets, weight, values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        adjacency = ctx.adjacency
        weight = ctx.weight[adjacency.by_column]
        return weighted_sums(adjacency.row, adjacency.column_offsets, weight, gradients[0].contiguous()), None, None


def weighted_sums(index: Tensor, start: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """Σ weight · values[index] of each bag start[r]:start[r+1]: float32 [R, D].

    index, weight: [E]; start: [R+1]; values: [C, D], fast where contiguous.
    """
    return embedding_bag(index, values, start, mode="sum", per_sample_weights=weight, include_last_offset=True)

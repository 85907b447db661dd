"""Edge-GraphSAGE: the message says who is heard and along which edge (as Lo et al. 2022, arXiv 2103.16329, hear edges)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from models.hops import Hop
from models.networks.view import FEATURES, View
from models.propagation import Adjacency, offsets, weighted_sums


class EdgeSAGE(nn.Module):
    """m_ij = ReLU(W [h_j ‖ f_ij ‖ type of ij]), h' = σ(W_self h + W_neigh Σ_j w_ij m_ij / Σ_j w_ij).

    f: the features of a `Relation`, so strength, count, age and season. All layers side by side, the last one linear.
    """

    RECIPE = {"heaviest": 16}

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        types = len(view.relations)
        self.layers = nn.ModuleList(EdgeConv(dimension, types) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        every, told = [values], Told.of(view)
        for place, layer in enumerate(self.layers):
            values = dropout(layer(values, told), self.dropout, self.training)
            values = relu(values) if place < len(self.layers) - 1 else values
            every.append(values)
        return torch.cat(every, 1)


@dataclass(frozen=True)
class Told:
    """The edges of all relations: whom each one tells, what is told on it, and of whom."""

    hop: Hop  # V nodes ← V nodes, means
    parts: Adjacency  # edges ← the V nodes and the T types after them: of each edge its source and its type
    features: Tensor  # float32 [E, FEATURES]

    @classmethod
    def of(cls, view: View) -> Told:
        """Of a view."""
        (edges, kind), hop, types = view.joined, view.hop(mean=True), len(view.relations)
        heard, count = hop.adjacency, len(kind)
        by_kind = torch.argsort(kind, stable=True).int()
        parts = Adjacency(
            torch.arange(0, 2 * count + 1, 2, dtype=torch.int32, device=kind.device),
            torch.stack([heard.column, kind.int() + view.node_count], 1).flatten(),
            torch.cat([heard.column_offsets, count + offsets(kind[by_kind], types).int()[1:]]),
            torch.cat([heard.by_column, by_kind]),
            torch.cat([2 * heard.by_column, 2 * by_kind + 1]),
        )
        return cls(hop, parts, edges.features)


class EdgeConv(nn.Module):
    """One layer of it; W falls into the parts for the neighbour, the features and the type."""

    def __init__(self, dimension: int, types: int) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(dimension, dimension), nn.Linear(FEATURES, dimension, bias=False)
        self.kind = nn.Embedding(types, dimension)
        self.own, self.heard = nn.Linear(dimension, dimension), nn.Linear(dimension, dimension, bias=False)
        nn.init.zeros_(self.edge.weight)
        nn.init.zeros_(self.kind.weight)

    def forward(self, values: Tensor, told: Told) -> Tensor:
        """float32 [V, D] → the same."""
        nodes_and_types = torch.cat([self.node(values), self.kind.weight])
        return self.own(values) + self.heard(messages(nodes_and_types, self.edge.weight, told))


def messages(values: Tensor, by_feature: Tensor, told: Told) -> Tensor:
    """Σ over edges of w · ReLU(value of the source + value of the type + by_feature · features), for every node.

    values: float32 [V + T, D], nodes and types; by_feature: float32 [D, FEATURES] → float32 [V, D].
    """
    return _Messages.apply(values, by_feature, told)  # pyright: ignore[reportReturnType]


class _Messages(torch.autograd.Function):
    """One tensor of size E · D a layer is kept; gradients are summed by column as values are by row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, by_feature: Tensor, told: Told) -> Tensor:
        ones = torch.ones(len(told.parts.column), device=values.device)
        said = weighted_sums(told.parts.column, told.parts.row_offsets, ones, values)
        said.addmm_(told.features, by_feature.T).relu_()
        ctx.save_for_backward(said)
        ctx.told = told
        every = torch.arange(len(said), dtype=torch.int32, device=said.device)
        return weighted_sums(every, told.hop.adjacency.row_offsets, told.hop.weight, said)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (said,), told = ctx.saved_tensors, ctx.told
        each = torch.repeat_interleave(gradients[0], told.hop.adjacency.row_offsets.diff(), dim=0)
        each = torch.ops.aten.threshold_backward(each.mul_(told.hop.weight[:, None]), said, 0.0)  # where ReLU let it by
        ones = torch.ones(len(told.parts.row), device=said.device)
        return weighted_sums(told.parts.row, told.parts.column_offsets, ones, each), each.T @ told.features, None

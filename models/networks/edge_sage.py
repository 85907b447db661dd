"""Edge-GraphSAGE: the message says who is heard and along which edge (as Lo et al. 2022, arXiv 2103.16329, hear edges)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, one_hot, relu

from models.hops import Hop
from models.networks.view import FEATURES, View
from models.propagation import weighted_sums


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
        every, hop = [values], view.hop(mean=True)
        edges, kind = view.joined
        told = torch.cat([edges.features, one_hot(kind, len(view.relations)).float()], 1)
        for place, layer in enumerate(self.layers):
            values = dropout(layer(values, hop, told), self.dropout, self.training)
            values = relu(values) if place < len(self.layers) - 1 else values
            every.append(values)
        return torch.cat(every, 1)


class EdgeConv(nn.Module):
    """One layer of it; W falls into the parts for the neighbour, the features and the type."""

    def __init__(self, dimension: int, types: int) -> None:
        super().__init__()
        self.node, self.edge = nn.Linear(dimension, dimension), nn.Linear(FEATURES, dimension, bias=False)
        self.kind = nn.Embedding(types, dimension)
        self.own, self.heard = nn.Linear(dimension, dimension), nn.Linear(dimension, dimension, bias=False)
        nn.init.zeros_(self.edge.weight)
        nn.init.zeros_(self.kind.weight)

    def forward(self, values: Tensor, hop: Hop, told: Tensor) -> Tensor:
        """float32 [V, D] → the same. told: float32 [E, FEATURES + types], features of each edge and a 1 for its type."""
        by_edge = torch.cat([self.edge.weight.T, self.kind.weight])
        return self.own(values) + self.heard(messages(self.node(values), told, by_edge, hop))


def messages(values: Tensor, told: Tensor, by_edge: Tensor, hop: Hop) -> Tensor:
    """Σ over edges of w · ReLU(values[column] + told @ by_edge), for every row of the hop.

    values: float32 [C, D]; told: float32 [E, F] (no gradient); by_edge: float32 [F, D] → float32 [R, D].
    """
    return _Messages.apply(values, told, by_edge, hop)  # pyright: ignore[reportReturnType]


class _Messages(torch.autograd.Function):
    """One tensor of size E · D a layer is kept; gradients are summed by column as values are by row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, told: Tensor, by_edge: Tensor, hop: Hop) -> Tensor:
        said = values[hop.adjacency.column].addmm_(told, by_edge).relu_()
        ctx.save_for_backward(said, told)
        ctx.hop = hop
        every = torch.arange(len(said), dtype=torch.int32, device=said.device)
        return weighted_sums(every, hop.adjacency.row_offsets, hop.weight, said)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, None]:
        (said, told), adjacency, weight = ctx.saved_tensors, ctx.hop.adjacency, ctx.hop.weight
        each = torch.repeat_interleave(gradients[0], adjacency.row_offsets.diff(), dim=0)
        each = torch.ops.aten.threshold_backward(each.mul_(weight[:, None]), said, 0.0)  # where ReLU let it through
        at_columns = weighted_sums(adjacency.by_column, adjacency.column_offsets, torch.ones_like(weight), each)
        return at_columns, None, told.T @ each, None

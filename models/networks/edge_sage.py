"""Edge-GraphSAGE: the message says who is heard and along which edge (as Lo et al. 2022, arXiv 2103.16329, hear edges)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from models.networks.view import FEATURES, View
from models.propagation import Adjacency, offsets, propagate


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
        every = [values]
        for place, layer in enumerate(self.layers):
            values = dropout(layer(view, values), self.dropout, self.training)
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

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same."""
        edges, kind = view.joined
        source, target = edges.edge_index
        said = relu(torch.addmm(self.node(values)[source] + self.kind(kind), edges.features, self.edge.weight.T))
        every = torch.arange(len(kind) + 1, dtype=torch.int32, device=kind.device)
        each = Adjacency(offsets(target, len(values)).int(), every[:-1], every, target.int(), every[:-1])
        return self.own(values) + self.heard(propagate(each, view.hop(mean=True).weight, said))

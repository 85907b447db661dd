"""GraphSAGE: h' = σ(W_self h + W_neigh · AGGREGATE of the neighbours) (Hamilton et al. 2017, arXiv 1706.02216).

Nothing in it belongs to one node, so users and items new after training get their vectors from their edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu
from torch_geometric.nn import SAGEConv

from models.hops import Hop
from models.networks.along import AlongSAGE
from models.networks.lstm import Sequences, last_states
from models.networks.view import Relation, View
from models.propagation import Adjacency, offsets

AGE = 2  # the place of an edge's age in its features; 0 where it has none or the clock stands still


class MeanSAGE(nn.Module):
    """AGGREGATE = Σ_j w_ij h_j / Σ_j w_ij over the edges of all relations. All layers side by side, the last one linear."""

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(AlongSAGE(dimension, dimension) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        return side_by_side(
            self.layers, values, [view.hop(mean=True)] * len(self.layers), self.dropout if self.training else 0.0
        )


class MaxSAGE(nn.Module):
    """AGGREGATE = max_j r_ij ReLU(W h_j + b), elementwise; r_ij = w_ij over that of the heaviest edge that i hears."""

    RECIPE = {"heaviest": 32}

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(MaxConv(dimension, dimension, aggr="max", project=True) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        return side_by_side(
            self.layers, values, [view.joined[0]] * len(self.layers), self.dropout if self.training else 0.0
        )


class SequenceSAGE(nn.Module):
    """AGGREGATE = what an LSTM has read after r_ij h_j of i's edges, the newest last; r as in MaxSAGE.

    Undated edges come first. Where the clock stands still edges are read from the lightest to the heaviest.
    """

    RECIPE = {"heaviest": 3}

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(SequenceConv(dimension, dimension, aggr="lstm") for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]; entities hear only what reaches a user or an item: nobody asks for them."""
        edges, told = by_date(view.joined[0]), []
        asked = torch.arange(len(values), device=values.device) < view.kinds["entity"].start
        for _ in self.layers:
            heard = edges.where(asked[edges.edge_index[1]])
            told.insert(0, Told.of(heard, len(values)))
            asked = asked.index_fill(0, heard.edge_index[0], True)
        return side_by_side(self.layers, values, told, self.dropout if self.training else 0.0)


class MaxConv(SAGEConv):
    """PyG's layer over a `Relation`, messages scaled by `relative`."""

    def propagate(self, edge_index: Relation, size: Any = None, **values: Any) -> Tensor:  # pyright: ignore
        source, target = edge_index.edge_index
        heard = values["x"][0][source] * relative(edge_index, len(values["x"][1]))[:, None]
        return self.aggr_module(heard, ptr=offsets(target, len(values["x"][1])), dim=0)


@dataclass(frozen=True)
class Told:
    """What nodes hear as sequences: the element of each edge, scaled by `relative`."""

    hop: Hop  # elements in the order of `sequences` ← nodes
    sequences: Sequences

    @classmethod
    def of(cls, edges: Relation, node_count: int) -> Told:
        """Of edges sorted by target, each target's as they are to be read."""
        sequences = Sequences.of(edges.edge_index[1])
        source, share = edges.edge_index[0][sequences.order], relative(edges, node_count)[sequences.order]
        element = torch.arange(len(source), device=source.device)
        return cls(Hop(Adjacency.build(element, source, len(source), node_count), share), sequences)


class SequenceConv(SAGEConv):
    """PyG's layer over what is `Told`, each sequence read to its own end: padding would be read as edges.

    W r h = r (W h), so the LSTM's product with what it reads is made once for each node instead of each edge.
    """

    def propagate(self, edge_index: Told, size: Any = None, **values: Any) -> Tensor:  # pyright: ignore
        lstm: Any = self.aggr_module.lstm
        told, bias = values["x"][0] @ lstm.weight_ih_l0.T, lstm.bias_ih_l0 + lstm.bias_hh_l0
        last = last_states(told, edge_index.hop, lstm.weight_hh_l0, bias, edge_index.sequences)
        return torch.zeros_like(values["x"][1]).index_copy(0, edge_index.sequences.owner, last)


def side_by_side(layers: nn.ModuleList, values: Tensor, edges: list[Any], share: float) -> Tensor:
    """[x, h¹, …, h^L], each layer but the last with ReLU, its outputs dropped by that share: so what is near stays apart.

    edges: what each layer hears.
    """
    every = [values]
    for place, layer in enumerate(layers):
        values = dropout(layer(values, edges[place]), share)
        values = relu(values) if place < len(layers) - 1 else values
        every.append(values)
    return torch.cat(every, 1)


def relative(edges: Relation, node_count: int) -> Tensor:
    """The weight of each edge over that of the heaviest that its target hears: float32 [E], 1 where all are alike."""
    target = edges.edge_index[1]
    heaviest = torch.zeros(node_count, device=target.device).scatter_reduce_(0, target, edges.weight, "amax")
    return edges.weight / heaviest[target]


def by_date(edges: Relation) -> Relation:
    """Edges in the order of targets, then from the oldest to the newest, then from the lightest to the heaviest."""
    edges = edges.where(torch.argsort(edges.weight, stable=True))
    age = edges.features[:, AGE]
    edges = edges.where(torch.argsort(torch.where(age == 0, inf, age), descending=True, stable=True))
    return edges.sorted()

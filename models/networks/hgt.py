"""The heterogeneous graph transformer: keys, queries and values by kind and relation (Hu et al. 2020, arXiv 2003.01332)."""

from __future__ import annotations

from math import gcd
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch_geometric.nn import HGTConv

from models.networks.gat import HEADS, Heard, attend, dots
from models.networks.view import KINDS, EdgeType, Ends, View

Rows = dict[str, Tensor]  # by kind of node


class AlongHGT(HGTConv):
    """PyG's layer with the weights of the edges: α_ij ∝ w_ij exp(μ_r q_iᵀ W_r k_j / √d), over all that a node hears."""

    # PyG's forward has no way to pass these on
    weight: Tensor  # float32 [E], in the order of the relations
    ends: Ends  # the sources of an edge are numbered within those of its relation

    def propagate(self, edge_index: Tensor, k: Tensor, q: Tensor, v: Tensor, edge_attr: Tensor) -> Tensor:  # pyright: ignore
        heard = Heard.of(edge_index, self.weight, len(k), len(q))
        logits = dots(heard.adjacency, q, k) * edge_attr[heard.order] / q.shape[-1] ** 0.5
        return attend(heard.adjacency, heard.shares(logits), v).flatten(1)

    def _construct_src_node_feat(
        self, k_dict: Rows, v_dict: Rows, edge_index_dict: dict[EdgeType, Any]
    ) -> tuple[Tensor, Tensor, dict[EdgeType, int]]:
        """Keys and values of a relation's sources as it transforms them; PyG's own copies all nodes for each of them."""
        size, place, start, found = self.out_channels // self.heads, {}, 0, []
        for rows, transform in ((k_dict, self.k_rel), (v_dict, self.v_rel)):
            heard = self.ends.heard(torch.cat([rows[kind] for kind in KINDS]))
            of_heads = transform.weight.view(self.heads, -1, size, size)
            types = [self.edge_types_map[name] for name in edge_index_dict]
            parts = [
                (one.transpose(0, 1) @ of_heads[:, kind]).transpose(0, 1)
                for one, kind in zip(heard, types, strict=True)
            ]
            found.append(torch.cat(parts))
        for name, adjacency in zip(edge_index_dict, self.ends.adjacency, strict=True):
            place[name], start = start, start + len(adjacency.column_offsets) - 1
        return found[0], found[1], place


def edges_of(view: View) -> dict[EdgeType, Tensor]:
    """Each relation's edges, int64 [2, E]: sources numbered within `View.ends`, targets within their kind."""
    relations = zip(view.relations, view.ends.adjacency, strict=True)
    return {name: torch.stack([one.column.long(), view.local(name)[1]]) for name, one in relations}


class HGT(nn.Module):
    """z = [x, h¹, …, h^L]: as in the paper, each layer mixes what is heard with what was there, by learned shares."""

    RECIPE: ClassVar = {"heaviest": 16}  # as good as twice as many, in half the time

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        known, heads = ([str(kind) for kind in KINDS], list(view.relations)), gcd(HEADS, dimension)
        self.layers = nn.ModuleList(AlongHGT(dimension, dimension, known, heads) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        weight = torch.cat([edges.weight for edges in view.relations.values()])
        edges = edges_of(view)
        every = [values]
        for layer in self.layers:
            layer.weight = weight
            layer.ends = view.ends  # pyright: ignore[reportArgumentType]
            before = view.split(values)
            after: Rows = layer(before, edges)
            values = torch.cat([after.get(kind, rows) for kind, rows in before.items()])
            values = dropout(values, self.dropout, self.training)
            every.append(values)
        return torch.cat(every, 1)

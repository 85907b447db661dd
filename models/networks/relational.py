"""Relational graph convolution: a transform for each relation (Schlichtkrull et al. 2018, arXiv 1703.06103)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, elu
from torch_geometric.nn import RGCNConv

from models.hops import Hop
from models.networks.view import Ends, View


class AlongRGCN(RGCNConv):
    """PyG's layer, its sums along hops between the ends of each relation: h_i' = W_0 h_i + b + Σ_r W_r Σ_j w_ij h_j / c_ij."""

    def forward(self, x: Tensor, edge_index: Ends, edge_type: list[Hop]) -> Tensor:  # pyright: ignore
        relations = zip(edge_type, edge_index.heard(x), self.weight, strict=True)
        heard = [hop(values) @ transform for hop, values, transform in relations]
        return (x @ self.root + self.bias).index_add(0, edge_index.target, torch.cat([x[:0], *heard]))


class RelationalGCN(nn.Module):
    """z = [h⁰, h¹, …, h^L], ELU between the layers, h⁰ = x + a vector for each kind of node; c_ij = √(d_i d_j) by relation.

    Every relation has its reverse as another one, so users, items and entities each hear by transforms of their own. These
    start as the identity: all kinds then share one space, and few steps suffice. Means (c = d_i) would let the one country of
    a user outweigh hundreds of items.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.kind = nn.Parameter(torch.zeros(len(view.kinds), dimension))
        self.layers = nn.ModuleList(AlongRGCN(dimension, dimension, len(view.relations)) for _ in range(layers))
        for name, transform in self.layers.named_parameters():
            if not name.endswith("bias"):
                transform.data.copy_(torch.eye(dimension).expand_as(transform))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        ends = view.ends
        hops = [Hop(one, view.hop(name).weight) for name, one in zip(view.relations, ends.adjacency, strict=True)]
        count = torch.tensor([place.stop - place.start for place in view.kinds.values()], device=values.device)
        values = values + self.kind.repeat_interleave(count, 0)
        every = [values]
        for place, layer in enumerate(self.layers):
            values = layer(values, ends, hops)
            values = elu(values) if place < len(self.layers) - 1 else values
            values = dropout(values, self.dropout, self.training)
            every.append(values)
        return torch.cat(every, 1)

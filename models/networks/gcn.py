"""Graph convolution on the joined graph: h' = σ(D̃^(−½) Ã D̃^(−½) h W), Ã = A + I (Kipf and Welling 2017, arXiv 1609.02907)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from models.hops import Hop
from models.networks.along import AlongGCN
from models.networks.view import View, degree
from models.propagation import Adjacency


class GCN(nn.Module):
    """PyG's layers, over the edges of all relations and a loop at each node as heavy as its mean edge."""

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(AlongGCN(dimension, dimension, normalize=False) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same; the last layer is linear."""
        hop = looped(view)
        for place, layer in enumerate(self.layers):
            values = dropout(layer(values, hop), self.dropout, self.training)
            values = relu(values) if place < len(self.layers) - 1 else values
        return values


def looped(view: View) -> Hop:
    """Ã with loops, normalised on both sides. With weights of 1 a loop weighs 1."""
    edges, _ = view.joined
    nodes = torch.arange(view.node_count, device=edges.weight.device)
    count = torch.bincount(edges.edge_index[1], minlength=view.node_count)
    heard = degree(edges.edge_index[1], edges.weight, view.node_count)
    loop = torch.where(count > 0, heard / count.clamp(min=1), 1.0)
    source, target = torch.cat([edges.edge_index, nodes.repeat(2, 1)], 1)
    weight = torch.cat([edges.weight, loop])
    order = torch.argsort(target, stable=True)
    source, target, weight = source[order], target[order], weight[order]
    total = degree(target, weight, view.node_count)
    share = weight / (total[source] * total[target]).sqrt().clamp(min=1e-30)
    return Hop(Adjacency.build(target, source, view.node_count, view.node_count), share)

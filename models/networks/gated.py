"""Networks with a gated state, and with messages that depend on the edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from models.networks.along import AlongGated
from models.networks.gat import attend
from models.networks.view import FEATURES, View


class GatedGraph(nn.Module):
    """GGNN: m_i = Σ_j a_ij W_l h_j, h_i = GRU(m_i, h_i), one GRU for all layers (Li et al. 2016, arXiv 1511.05493).

    a_ij = w_ij / √(d_i d_j), so that a node of many edges does not shout; z = [x, h^L].
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layer = AlongGated(dimension, layers)
        with torch.no_grad():  # starts as a plain sum of neighbours
            self.layer.weight.copy_(torch.eye(dimension).expand(layers, -1, -1))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, 2 D]."""
        state = dropout(self.layer(values, view.hop()), self.dropout, self.training)
        return torch.cat([values, state], 1)


class MessagePassingNetwork(nn.Module):
    """MPNN: m_i = Σ_j a_ij A(e_ij) h_j, h_i = GRU(m_i, h_i) (Gilmer et al. 2017, arXiv 1704.01212); z = [x, h^L].

    The edge network A(e) = Σ_c g_c(e) W_c mixes a few transforms by a softmax over the edge's features and type, so its sum is
    one hop for each transform instead of a matrix for each edge.
    """

    transforms = 3

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.steps = dropout, layers
        self.feature = nn.Linear(FEATURES, self.transforms)
        self.kind = nn.Embedding(len(view.relations), self.transforms)
        self.transform = nn.Parameter(torch.eye(dimension).repeat(self.transforms, 1, 1))
        self.update = nn.GRUCell(dimension, dimension)

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, 2 D]."""
        hop, state = view.hop(), values
        edges, kind = view.joined
        mix = (self.feature(edges.features) + self.kind(kind)).softmax(1) * hop.weight[:, None]  # [E, C]
        for _ in range(self.steps):
            told = torch.einsum("vd,cde->vce", state, self.transform)
            state = self.update(attend(hop.adjacency, mix, told).sum(1), state)
        return torch.cat([values, dropout(state, self.dropout, self.training)], 1)

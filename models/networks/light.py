"""LightGCN: z = Σ_l α_l Ã^l x, no weights between the layers (He et al. 2020, arXiv 2002.02126)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.along import AlongLG
from models.networks.view import View


class LightGCN(nn.Module):
    """α_l = 1/(L+1), or learned as the softmax of as many numbers."""

    def __init__(self, view: View, dimension: int, layers: int, dropout: float, learned: bool = False) -> None:
        super().__init__()
        self.layer = AlongLG(normalize=False)
        self.alpha = nn.Parameter(torch.zeros(layers + 1), requires_grad=learned)

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same."""
        hop, alpha = view.hop(), self.alpha.softmax(0)
        total = alpha[0] * values
        for share in alpha[1:]:
            values = self.layer(values, hop)
            total = total + share * values
        return total


class LearnedLightGCN(LightGCN):
    """With learned α."""

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__(view, dimension, layers, dropout, learned=True)

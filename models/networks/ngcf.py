"""NGCF: m = W1 x_j + W2 (x_j ⊙ x_i), all layers side by side (Wang et al. 2019, arXiv 1905.08108)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from models.networks.view import View


class NGCF(nn.Module):
    """h_i = LeakyReLU(W1 x_i + Σ_j a_ij (W1 x_j + W2 (x_j ⊙ x_i))), a_ij = w_ij / √(d_i d_j); z = [x, h¹, …, h^L].

    x_i stands outside of the sum over j, so both parts need only Σ_j a_ij x_j.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.own = nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))
        self.shared = nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))
        for linear in (*self.own, *self.shared):
            nn.init.xavier_uniform_(linear.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(linear.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        hop, every = view.hop(), [values]
        for own, shared in zip(self.own, self.shared, strict=True):
            heard = hop(values)
            values = leaky_relu(own(values + heard) + shared(heard * values))
            values = dropout(values, self.dropout, self.training)
            every.append(values)
        return torch.cat(every, 1)

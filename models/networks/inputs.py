"""What networks start from: a vector of its own for each node that was learned from, and what is known of it as features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.networks.view import View

SPREAD = 0.1  # of the start values


class Inputs(nn.Module):
    """x_v = own_v + W f_v; nodes without an own vector take the mean of that and their neighbours'.

    Items and entities have own vectors once an edge of the training graph touches them; users only if `user_ids`: without,
    a user is what the edges say, and one event is enough to be scored. With `id_dropout` own vectors are left out at random
    in training, so that the features learn to stand in (Volkovs et al. 2017, DropoutNet).
    """

    def __init__(self, view: View, dimension: int, *, user_ids: bool, id_dropout: float) -> None:
        super().__init__()
        graph = view.graph
        edges, _ = view.joined
        known = torch.zeros(view.node_count, dtype=torch.bool, device=edges.weight.device)
        known[edges.edge_index.flatten()] = True
        known[view.kinds["user"]] &= user_ids
        self.known = nn.Buffer(known)
        self.id_dropout = id_dropout
        self.own = nn.Parameter(torch.randn(view.node_count, dimension) * SPREAD)
        self.user = nn.Parameter(torch.zeros(graph.user_features.shape[1], dimension))
        self.item = nn.Parameter(torch.zeros(graph.item_features.shape[1], dimension))

    def forward(self, view: View) -> Tensor:
        """float32 [V, D]."""
        kept = self.known
        if self.training and self.id_dropout:
            kept = kept & (torch.rand(len(kept), device=kept.device) >= self.id_dropout)
        facts = [view.graph.user_features @ self.user, view.graph.item_features @ self.item]
        features = torch.cat([*facts, self.own.new_zeros(view.graph.entity_count, self.own.shape[1])])
        values = self.own * kept[:, None] + features
        heard = view.hop(mean=True)(values)
        return torch.where(kept[:, None], values, (values + heard) / 2)

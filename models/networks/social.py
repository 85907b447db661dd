"""A network that hears friends: what they are like, and what they like."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from models.networks.view import EdgeType, View


class SocialGCN(nn.Module):
    """z_u = Σ_l (h^l_u + γ_l ⊙ s^l_u) / (L + 1), s^l_u = Σ_f a_uf h^l_f over the friends of u (DiffNet: Wu et al. 2019,
    arXiv 1904.10322).

    h is LightGCN's over all edges but those between users. s⁰ is homophily, friends' own vectors; s^l, l ≥ 1, is influence,
    what friends have taken from their items. γ is learned for each layer and component, so that friends count as far as they
    help; it starts at 0: without friends, or without gain from them, this is LightGCN.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.layers = dropout, layers
        self.influence = nn.Parameter(torch.zeros(layers + 1, dimension))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → the same."""
        hop = unsocial(view).hop()
        friends = [view.hop(name, mean=True) for name in view.relations if is_social(name)]
        total = torch.zeros_like(values)
        for place, influence in enumerate(self.influence):
            values = hop(values) if place else values
            total = total + values
            for friend in friends:
                total = total + influence / len(friends) * dropout(friend(values), self.dropout, self.training)
        return total / (self.layers + 1)


def is_social(name: EdgeType) -> bool:
    """Whether the relation is between users."""
    return name[0] == name[2] == "user"


def unsocial(view: View) -> View:
    """The view without friendships."""
    return view.without(is_social)

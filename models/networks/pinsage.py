"""PinSage: neighbours are whom short random walks meet most, and count as often as met (Ying et al. 2018, arXiv 1806.01973)."""

from __future__ import annotations

from datetime import date

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from models.hops import Hop
from models.networks.sampling import TimeIndex
from models.networks.view import View
from models.networks.walks import importance
from models.propagation import Adjacency

NEIGHBOURS = 50  # items that a node hears of
WALKS = 50
SEED = 7  # of the walks


class PinSage(nn.Module):
    """n_i = Σ_j α_ij ReLU(Q h_j + q), h' = ReLU(W [h_i ‖ n_i] + b), z = [x, h¹, …, G₂ ReLU(G₁ h^L)].

    α_ij: the share of item j in the visits of walks from i along the edges of all relations, drawn by weight, so that
    recent events lead further. Trained against hard negatives, the highest scored of those drawn.
    """

    RECIPE = {"negatives": "hard", "negative_count": 32}

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.offer = nn.ModuleList(nn.Linear(dimension, dimension) for _ in range(layers))
        self.join = nn.ModuleList(nn.Linear(2 * dimension, dimension) for _ in range(layers))
        self.last = nn.Sequential(nn.Linear(dimension, dimension), nn.ReLU(), nn.Linear(dimension, dimension))
        self.walked: dict[date, Hop] = {}

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        hop, every = self.neighbours(view), [values]
        for offer, join in zip(self.offer, self.join, strict=True):
            heard = hop(relu(offer(values)))
            values = dropout(relu(join(torch.cat([values, heard], 1))), self.dropout, self.training)
            every.append(values)
        return torch.cat([*every[:-1], self.last(values)], 1)

    def neighbours(self, view: View) -> Hop:
        """Walked anew for every view; in training, where all are of one graph, once for each date."""
        if not self.training:
            self.walked = {}
            return walk(view)
        if view.graph.as_of not in self.walked:
            self.walked[view.graph.as_of] = walk(view)
        return self.walked[view.graph.as_of]


def walk(view: View) -> Hop:
    """Of each node, the items most met by walks from it: rows sum to 1, or 0 where there is nowhere to go."""
    edges, _ = view.joined
    source, target = edges.edge_index
    device = source.device
    index = TimeIndex.build(source, target, torch.ones_like(source), edges.weight, view.node_count)
    items = torch.zeros(view.node_count, dtype=torch.bool, device=device)
    items[view.kinds["item"]] = True
    seeds = torch.unique(target)
    dice = torch.Generator(device).manual_seed(SEED)
    row, node, alpha = importance(index, seeds, torch.zeros_like(seeds), NEIGHBOURS, dice, WALKS, counted=items)
    return Hop(Adjacency.build(seeds[row], node, view.node_count, view.node_count), alpha)

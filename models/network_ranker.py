"""A trained network as of one graph's date: scores for lists, and the reason of each entry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.graph import Graph
from models.network import LISTS, Network
from models.propagation import propagate
from models.settings import ModelSettings
from models.timeline import Snapshot, Timeline

USERS_PER_CHUNK = 512


class NetworkRanker:
    """Refreshes trends, kernels and histories for `graph`; the network is not trained again."""

    def __init__(self, network: Network, graph: Graph, name: str = "almanac") -> None:
        self.name, self.network = name, network
        self.timeline = Timeline(graph, network.horizon_days, network.settings)

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]; items not live have −∞."""
        parts = users.split(USERS_PER_CHUNK)
        return torch.cat([self.network.unmasked(self.timeline.at(0, part))[LISTS.index(list_name)] for part in parts])

    @torch.no_grad()
    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        raise NotImplementedError

"""HAN: attention within and between meta-paths such as user–item–user (Wang et al. 2019, arXiv 1903.07293)."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu
from torch_geometric.nn import HANConv

from models.hops import row_shares
from models.networks.gat import HEADS, Heard, attend
from models.networks.view import KINDS, EdgeType, Relation, View

PATHS = (("user", "item"), ("item", "user"), ("item", "entity"))  # from a node over a middle one to its like
WIDTH = 32  # edges that a node hears on each path


class AlongHAN(HANConv):
    """PyG's layer over what is `Heard`: on each path α_ij ∝ w_ij exp(LeakyReLU(aᵀ[h_i ‖ h_j]))."""

    def propagate(self, edge_index: Heard, x: Any, alpha: Any) -> Tensor:  # pyright: ignore
        source, target = edge_index.edge_index
        logits = leaky_relu(alpha[0][source] + alpha[1][target], self.negative_slope)
        shares = dropout(edge_index.shares(logits), self.dropout, self.training)
        return attend(edge_index.adjacency, shares, x[0]).flatten(1)


class HAN(nn.Module):
    """z = [x, h¹, …, h^L]; entities, to which no path leads, stay as they are."""

    RECIPE: ClassVar = {"heaviest": 8}  # of each relation: a node has as many paths as the square of it

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        known, heads = ([str(kind) for kind in KINDS], [path(*ends) for ends in PATHS]), gcd(HEADS, dimension)
        self.layers = nn.ModuleList(AlongHAN(dimension, dimension, known, heads) for _ in range(layers))

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        walks, every = walked(view), [values]
        count = {kind: place.stop - place.start for kind, place in view.kinds.items()}
        heard = {
            name: Heard.of(walks.local(name), edges.weight, count[name[0]], count[name[2]])
            for name, edges in walks.relations.items()
        }
        for layer in self.layers:
            before = view.split(values)
            after: dict[str, Any] = layer(before, heard)
            new = torch.cat([rows if after[kind] is None else after[kind] for kind, rows in before.items()])
            values = dropout(new, self.dropout, self.training)
            every.append(values)
        return torch.cat(every, 1)


def walked(view: View, width: int = WIDTH) -> View:
    """The meta-paths as relations: w_ij = how likely a walk from i over a middle node, by weight, ends at j.

    So decayed weights decay paths; each node keeps its `width` likeliest ones. Built with scipy, which adds up repeated edges.
    """
    relations = {}
    for end, middle in PATHS:
        walk = (_steps(view, middle, end) @ _steps(view, end, middle)).tocoo()
        edge = torch.from_numpy(np.stack([walk.col, walk.row]).astype(np.int64))
        weight = torch.from_numpy(walk.data)
        device = view.graph.interactions.strength.device
        relations[path(end, middle)] = Relation(edge.to(device), weight.to(device), torch.zeros(len(weight), 0))
    return replace(view, relations=relations).heaviest(width)


def path(end: str, middle: str) -> EdgeType:
    """The name of a meta-path among relations."""
    return end, f"over_{middle}", end


def _steps(view: View, source: str, target: str) -> Any:
    """How a node of kind `target` shares its attention between the sources it hears: CSR [V, V], rows sum to 1."""
    found = [edges for name, edges in view.relations.items() if (name[0], name[2]) == (source, target)]
    edge = torch.cat([torch.zeros(2, 0, dtype=torch.int64), *(edges.edge_index.cpu() for edges in found)], 1)
    weight = torch.cat([torch.zeros(0), *(edges.weight.cpu() for edges in found)])
    share = row_shares(weight, edge[1], view.node_count).numpy()
    steps = csr_array((share, (edge[1].numpy(), edge[0].numpy())), shape=(view.node_count, view.node_count))
    steps.sum_duplicates()
    return steps

"""What one step of training hears of a graph too large for it: a sample of its edges, or of its nodes with theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from models.networks.sampling import KnownEdges
from models.networks.subgraphs import Subgraph, cluster_batches, clusters, saint_edges, saint_nodes, saint_walks
from models.networks.view import Relation, View

Sample = Callable[[View, float, torch.Generator], tuple[View, Tensor | None]]  # None = every node takes part
PARTS_PER_BATCH = 2


def neighbours(
    view: View, size: float, dice: torch.Generator, order: Callable[[Relation, torch.Generator], Tensor]
) -> tuple[View, None]:
    """Each node hears `size` edges of each relation, those first in an order (GraphSAGE; Hamilton et al. 2017)."""
    return view.picked(int(size), lambda edges: order(edges, dice)), None


def dropped(view: View, size: float, dice: torch.Generator) -> tuple[View, None]:
    """Each edge is left out with probability `size` (DropEdge; Rong et al. 2020, arXiv 1907.10903)."""

    def thinned(edges: Relation) -> Relation:
        return edges.where(torch.rand(len(edges.weight), generator=dice, device=dice.device) >= size)

    return replace(view, relations={name: thinned(edges) for name, edges in view.relations.items()}), None


def part(
    view: View, size: float, dice: torch.Generator, draw: Callable[[KnownEdges, int, torch.Generator], Subgraph]
) -> tuple[View, Tensor]:
    """The edges between the nodes of a subgraph that is drawn from the edges of all relations; who is in it: bool [V]."""
    edges, _ = view.joined
    source, target = edges.edge_index
    every = torch.arange(len(target), device=target.device)
    node = draw(KnownEdges(source, target, edges.weight, every, view.node_count), int(size), dice).node
    inside = torch.zeros(view.node_count, dtype=torch.bool, device=node.device)
    inside[node] = True
    kept = {name: edges.where(inside[edges.edge_index].all(0)) for name, edges in view.relations.items()}
    return replace(view, relations=kept), inside


def cluster(edges: KnownEdges, size: int, dice: torch.Generator) -> Subgraph:
    """Some of `size` parts with few edges between them (Cluster-GCN; Chiang et al. 2019)."""
    return next(cluster_batches(edges, clusters(edges, size, dice), PARTS_PER_BATCH, dice))


def by_chance(edges: Relation, dice: torch.Generator) -> Tensor:
    """An order in which every edge is as likely to come first."""
    return torch.rand(edges.weight.shape, generator=dice, device=dice.device)


def by_weight(edges: Relation, dice: torch.Generator) -> Tensor:
    """An order drawn by weight, without replacement: Gumbel top-k (Kool et al. 2019)."""
    wait = torch.empty_like(edges.weight).exponential_(generator=dice)
    return edges.weight.log() - wait.log()


SAMPLES: dict[str, Sample] = {
    "neighbours": partial(neighbours, order=by_chance),
    "neighbours_by_weight": partial(neighbours, order=by_weight),
    "edge_dropout": dropped,
    "saint_nodes": partial(part, draw=saint_nodes),
    "saint_edges": partial(part, draw=saint_edges),
    "saint_walks": partial(part, draw=saint_walks),
    "cluster": partial(part, draw=cluster),
}

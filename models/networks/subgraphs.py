"""Parts of a graph to train on: layers drawn by importance (FastGCN), clusters (Cluster-GCN) and samples (GraphSAINT)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from models.networks.sampling import KnownEdges, Layer, drawn
from models.propagation import offsets

SMOOTHINGS = 60  # rounds after which a random signal is close to the slowest one
SWAPS = 5


@dataclass(frozen=True)
class Subgraph:
    """Some nodes, and all known edges between them in their numbering."""

    node: Tensor  # int64 [N], ascending
    edge_index: Tensor  # int64 [2, M], positions in node of sources and targets
    weight: Tensor  # float32 [M]
    edge: Tensor  # int64 [M], position in KnownEdges


def column_importance(edges: KnownEdges) -> Tensor:
    """Σ over targets of weight², ‖A[:, v]‖²: float64 [V]."""
    squares = torch.zeros(edges.node_count, dtype=torch.float64, device=edges.weight.device)
    return squares.index_add_(0, edges.source, edges.weight.double() ** 2)


def layer_wise(
    edges: KnownEdges, targets: Tensor, sizes: Sequence[int], dice: torch.Generator
) -> list[tuple[Tensor, Layer, Tensor]]:
    """For each layer, first applied first: its source nodes, the edges to its targets, and their unbiased weights.

    FastGCN (Chen et al. 2018, arXiv 1801.10247): t sources drawn with replacement by q(v) ∝ ‖A[:, v]‖², each edge weighted
    A[u, v] · draws(v) / (t q(v)), so that sums over the drawn sources are those over all on average. targets: int64 [T],
    distinct; sizes: draws per hop from the targets on. Sources need not hold the targets: add self-loops to the edges for
    them, and use a layer without a term of its own for the target.
    """
    odds = column_importance(edges)
    odds = odds / odds.sum()
    layers = []
    for size in sizes:
        node, draws = torch.unique(drawn(odds, size, dice), return_counts=True)
        source, target = _positions(edges, node), _positions(edges, targets)
        kept = torch.nonzero((source[edges.source] >= 0) & (target[edges.target] >= 0)).squeeze(1)
        edge_index = torch.stack([source[edges.source[kept]], target[edges.target[kept]]])
        factor = (draws / (size * odds[node])).float()
        layer = Layer(edge_index, edges.edge[kept], len(node), len(targets))
        layers.append((node, layer, edges.weight[kept] * factor[edge_index[0]]))
        targets = node
    return layers[::-1]


def induced(edges: KnownEdges, node: Tensor) -> Subgraph:
    """All known edges between these nodes (int64 [N], ascending, distinct)."""
    position = _positions(edges, node)
    source, target = position[edges.source], position[edges.target]
    kept = torch.nonzero((source >= 0) & (target >= 0)).squeeze(1)
    return Subgraph(node, torch.stack([source[kept], target[kept]]), edges.weight[kept], kept)


def clusters(edges: KnownEdges, part_count: int, dice: torch.Generator) -> Tensor:
    """Parts of even size with few edges between them: int64 [V], the part 0..P-1 of each node.

    In place of the METIS of Cluster-GCN: every part is halved where a random signal, smoothed over its inner edges, has its
    median (spectral bisection by power iteration, Pothen et al. 1990); nodes that are closer to each other's parts then swap.
    """
    part, share = np.zeros(edges.node_count, np.int64), np.zeros(part_count, np.int64)
    share[0] = part_count  # how many parts each is still to become
    both_ways = _both_ways(edges)
    while share.max() > 1:
        order = np.lexsort((_slow_signal(both_ways, part, part_count, dice), part))
        size, left = np.bincount(part, minlength=part_count), (share + 1) // 2
        right = _ranks(part, order) >= (size * left // np.maximum(share, 1))[part]
        part = part + right * left[part]
        halved = np.nonzero(share > 1)[0]
        share[halved + left[halved]] = share[halved] - left[halved]
        share[halved] = left[halved]
        for _ in range(SWAPS):
            part = _swapped(both_ways, part, part_count, dice)
    return torch.from_numpy(part).to(edges.weight.device)


def cluster_batches(edges: KnownEdges, part: Tensor, parts_per_batch: int, dice: torch.Generator) -> Iterator[Subgraph]:
    """Every node once: the graphs induced by random groups of parts (Chiang et al. 2019, arXiv 1905.07953)."""
    order = torch.randperm(int(part.max()) + 1, generator=dice, device=part.device)
    for chosen in order.split(parts_per_batch):
        yield induced(edges, torch.nonzero(torch.isin(part, chosen)).squeeze(1))


def saint_nodes(edges: KnownEdges, count: int, dice: torch.Generator, odds: Tensor | None = None) -> Subgraph:
    """Induced by `count` nodes drawn with replacement by ‖A[:, v]‖², or by odds (float [V]), as of a PageRank."""
    return induced(edges, torch.unique(drawn(column_importance(edges) if odds is None else odds, count, dice)))


def saint_edges(edges: KnownEdges, count: int, dice: torch.Generator) -> Subgraph:
    """Induced by the ends of `count` edges drawn with replacement by 1/degree(source) + 1/degree(target)."""
    degree = torch.bincount(edges.target, minlength=edges.node_count).clamp(min=1).double()
    edge = drawn(1 / degree[edges.source] + 1 / degree[edges.target], count, dice)
    return induced(edges, torch.unique(torch.cat([edges.source[edge], edges.target[edge]])))


def saint_walks(edges: KnownEdges, count: int, dice: torch.Generator, steps: int = 2) -> Subgraph:
    """Induced by walks of some steps to even neighbours from `count` nodes drawn at even odds."""
    start = offsets(edges.target, edges.node_count)
    device = edges.source.device
    at = torch.randint(edges.node_count, (count,), generator=dice, device=device)
    visited = [at]
    for _ in range(steps):
        degree = start[at + 1] - start[at]
        share = torch.rand(count, generator=dice, device=device, dtype=torch.float64)
        neighbour = start[at] + (share * degree).long()
        at = at.clone()
        at[degree > 0] = edges.source[neighbour[degree > 0]]
        visited.append(at)
    return induced(edges, torch.unique(torch.cat(visited)))


SAINT = {"node": saint_nodes, "edge": saint_edges, "walk": saint_walks}


def saint_weights(edges: KnownEdges, sample: Callable[[], Subgraph], samples: int) -> tuple[Tensor, Tensor]:
    """What makes sums over samples right on average: loss factor of each node float32 [V], of each edge's weight float32 [E].

    GraphSAINT (Zeng et al. 2020, arXiv 1907.04931), counted over `samples` samples: 1/λ_v = samples / C_v and
    1/α_uv = C_v / C_uv for an edge u → v. Nodes and edges never met count as met once.
    """
    nodes = torch.zeros(edges.node_count, device=edges.weight.device)
    met = torch.zeros_like(edges.weight)
    for _ in range(samples):
        part = sample()
        nodes[part.node] += 1
        met[part.edge] += 1
    nodes = nodes.clamp(min=1)
    return samples / nodes, nodes[edges.target] / met.clamp(min=1)


def _positions(edges: KnownEdges, node: Tensor) -> Tensor:
    """The position of every node among these, -1 for others: int64 [V]."""
    position = torch.full((edges.node_count,), -1, device=node.device)
    position[node] = torch.arange(len(node), device=node.device)
    return position


def _both_ways(edges: KnownEdges) -> csr_array:
    """A + Aᵀ."""
    source, target, weight = (column.cpu().numpy() for column in (edges.source, edges.target, edges.weight))
    shape = (edges.node_count, edges.node_count)
    one_way = csr_array((weight.astype(np.float64), (target, source)), shape=shape)
    return csr_array(one_way + one_way.T)


def _slow_signal(both_ways: csr_array, part: np.ndarray, part_count: int, dice: torch.Generator) -> np.ndarray:
    """A signal that differs little along the edges inside the parts, and has the mean 0 in each: float64 [V]."""
    edges = both_ways.tocoo()
    inner = part[edges.row] == part[edges.col]
    within = csr_array((edges.data[inner], (edges.row[inner], edges.col[inner])), shape=both_ways.shape)
    degree = within.sum(axis=1)
    mass = np.maximum(np.bincount(part, degree, part_count), 1e-30)
    signal = torch.randn(len(part), generator=dice, device=dice.device, dtype=torch.float64).cpu().numpy()
    for _ in range(SMOOTHINGS):
        signal = signal - (np.bincount(part, degree * signal, part_count) / mass)[part]
        signal = (signal + within @ signal / np.maximum(degree, 1e-30)) / 2
    return signal


def _swapped(both_ways: csr_array, part: np.ndarray, part_count: int, dice: torch.Generator) -> np.ndarray:
    """A random half of the nodes goes to the part it has most weight to, as far as others come from there: sizes stay."""
    member = csr_array((np.ones(len(part)), (np.arange(len(part)), part)), shape=(len(part), part_count))
    to_parts = csr_array(both_ways @ member)
    best, here = np.asarray(to_parts.argmax(axis=1)), to_parts.multiply(member).sum(axis=1)
    gain = to_parts.max(axis=1).toarray().ravel() - here
    awake = torch.rand(len(part), generator=dice, device=dice.device).cpu().numpy() < 0.5
    mover = np.nonzero(awake & (gain > 0))[0]
    way, back = part[mover] * part_count + best[mover], best[mover] * part_count + part[mover]
    count = np.bincount(way, minlength=part_count**2)
    goes = mover[_ranks(way, np.lexsort((-gain[mover], way))) < count[back]]
    swapped = part.copy()
    swapped[goes] = best[goes]
    return swapped


def _ranks(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The place of each element in its group, in an order that sorts by group."""
    size = np.bincount(group)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    return rank

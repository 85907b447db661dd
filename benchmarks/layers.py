"""What one layer costs, forward and backward, against edges and dimension: sums along a `Hop` beside PyG's gather.

Run: python -m benchmarks.layers [--smoothness NAME ...] (two minutes). Random graphs with as many users as items, ten edges
each way a node; one thread; CPU ms are the least of three runs, MB what torch holds at most of what the layer allocated.
Stated: time O(|E| d), memory O(|V| d) for sums and O(|E| d) for gathers; the last columns are the powers as measured.
With `--smoothness` instead: how alike the vectors of these networks (all that can be named) are after each of four layers,
as they start, on ML-100K (needs ALMANAC_DATA).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from benchmarks.static import read
from benchmarks.static_models import undated
from models.networks import NETWORKS, network
from models.networks.along import AlongGCN, AlongLG, AlongSAGE
from models.networks.diagnostics import cost, growth, smoothness
from models.networks.gat import AlongGAT, Heard
from models.networks.view import Clock, View

EDGES = (100_000, 300_000, 900_000)  # one way; a layer sums along both
DIMENSIONS = (16, 32, 64)
DEGREE = 10
HEADS = 4
DEEP = 4


def random_view(edges: int) -> View:
    """Users and items with about `edges` pairs between them."""
    dice, count = torch.Generator().manual_seed(0), edges // DEGREE
    pairs = torch.randint(count * count, (edges,), generator=dice).unique()
    graph = undated(pairs // count, pairs % count, torch.zeros(len(pairs)), count, count)
    return View.of(graph, Clock())


def layers(view: View, dimension: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """One layer of each kind, from vectors to vectors."""
    edges, mean, both = view.joined[0], view.hop(mean=True), view.hop()
    heard = Heard.of(edges.edge_index, edges.weight, view.node_count, view.node_count)
    width = dimension // HEADS
    lone = {"normalize": False}
    attention = {"heads": HEADS, "add_self_loops": False}
    return {
        "LightGCN along a Hop": partial(_call, AlongLG(**lone), both),
        "GCN along a Hop": partial(_call, AlongGCN(dimension, dimension, **lone), both),
        "GCN, PyG's gather": partial(_gather, GCNConv(dimension, dimension, **lone), edges.edge_index, both.weight),
        "SAGE along a Hop": partial(_call, AlongSAGE(dimension, dimension), mean),
        "SAGE, PyG's gather": partial(_call, SAGEConv(dimension, dimension), edges.edge_index),
        "GAT along what is heard": partial(_call, AlongGAT(dimension, width, **attention), heard),
        "GAT, PyG's gather": partial(_call, GATConv(dimension, width, **attention), edges.edge_index),
    }


def _call(layer: Callable[..., Tensor], edges: object, values: Tensor) -> Tensor:
    return layer(values, edges)


def _gather(layer: Callable[..., Tensor], edge_index: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    return layer(values, edge_index, weight)


def costs() -> None:
    """Prints the table of costs."""
    sizes = [(count, dimension) for count in EDGES for dimension in DIMENSIONS]
    found: dict[str, list[tuple[float, float]]] = {}
    for count in EDGES:
        view = random_view(count)
        for dimension in DIMENSIONS:
            values = torch.randn(view.node_count, dimension, requires_grad=True)
            for name, layer in layers(view, dimension).items():
                paid = cost(partial(layer, values))
                found.setdefault(name, []).append((paid.seconds * 1e3, paid.peak_bytes / 1e6))
    named = [f"{count // 1000}k × {dimension}" for count, dimension in sizes]
    print(f"| layer, ms / MB | {' | '.join(named)} | ms ∝ \\|E\\|^ | ms ∝ d^ | MB ∝ d^ |")
    print("| --- " * (len(sizes) + 4) + "|")
    last, most = len(DIMENSIONS), max(EDGES)
    for name, paid in found.items():
        of_edges = growth([float(count) for count in EDGES], [ms for ms, _ in paid[last - 1 :: last]])
        widest = [cell for cell, (count, _) in zip(paid, sizes, strict=True) if count == most]
        of_width = [growth([float(d) for d in DIMENSIONS], list(column)) for column in zip(*widest, strict=True)]
        cells = [f"{ms:.0f} / {mb:.0f}" for ms, mb in paid]
        print(f"| {name} | {' | '.join(cells)} | {of_edges:.2f} | {of_width[0]:.2f} | {of_width[1]:.2f} |")


def alike(names: list[str]) -> None:
    """Prints mean cosine and Dirichlet energy of each network's vectors after each layer, untrained."""
    train, _ = read("ml-100k", 0)
    graph = undated(train.user, train.item, train.stars, int(train.user.max()) + 1, int(train.item.max()) + 1)
    view = View.of(graph, Clock())
    values = torch.randn(view.node_count, 64, generator=torch.Generator().manual_seed(0))
    print(f"| network | {' | '.join(f'after {layer}' for layer in range(DEEP + 1))} |")
    print("| --- " * (DEEP + 2) + "|")
    for name in names:
        torch.manual_seed(0)
        encoder = network(name)(view, values.shape[1], DEEP, 0.0).eval()
        try:
            cells = [f"{one.mean_cosine:.3f}, {one.dirichlet_energy:.3f}" for one in smoothness(encoder, view, values)]
        except ValueError as error:
            cells = [str(error)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main(arguments: list[str]) -> None:
    """Prints one of the tables."""
    torch.set_num_threads(1)
    if "--smoothness" in arguments:
        alike([name for name in arguments if name != "--smoothness"] or list(NETWORKS))
    else:
        costs()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Neighbours in time: for each seed only edges from before the seed's own day, at every hop. Plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from models.propagation import offsets, ranges

SPAN_DAYS = 2**31  # above every age, so that node × span + age sorts by node, then newest first
MOST_CANDIDATES = 2**22  # edges weighed at once

Pick = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # (seeds, seed_age, k) to (row of seed, edge)


@dataclass(frozen=True)
class TimeIndex:
    """Edges source → target sorted by target, then newest first, to be asked for the neighbours of (node, age) pairs.

    An edge is known to a seed only if `age_days > seed_age`. Every answer is (row of the seed, edge), int64 [M] each, rows
    ascending; an edge is its position in the tensors given to `build`.
    """

    source: Tensor  # int64 [E], as given
    age_days: Tensor  # int [E], as given, at least 1
    weight: Tensor  # float32 [E], as given, above 0
    key: Tensor  # int64 [E], target · SPAN_DAYS + age, ascending
    edge: Tensor  # int64 [E], the given position of each edge in key order
    offsets: Tensor  # int64 [V+1], start of each target in key order
    reach: Tensor  # float64 [E+1], running sum in key order of the weights, each relative to its target's largest

    @classmethod
    def build(cls, source: Tensor, target: Tensor, age_days: Tensor, weight: Tensor, node_count: int) -> TimeIndex:
        """From edges in any order. Raises ValueError where an age is below 1."""
        if len(age_days) and int(age_days.min()) < 1:
            raise ValueError(
                f"an edge is {int(age_days.min())} days old (expected at least 1): cut the graph at its date"
            )
        key, edge = torch.sort(target * SPAN_DAYS + age_days, stable=True)
        largest = torch.zeros(node_count, device=weight.device).scatter_reduce_(0, target, weight, "amax")
        share = (weight.double() / largest[target])[edge]
        reach = torch.cat([share.new_zeros(1), torch.cumsum(share, 0)])
        return cls(source, age_days, weight, key, edge, offsets(key // SPAN_DAYS, node_count), reach)

    def known(self, seeds: Tensor, seed_age: Tensor) -> tuple[Tensor, Tensor]:
        """Start and stop, in key order, of the edges into each seed from before its day: int64 [S] each."""
        start = torch.searchsorted(self.key, seeds * SPAN_DAYS + seed_age.clamp(min=0), right=True)
        return start, self.offsets[seeds + 1]

    def most_recent(self, seeds: Tensor, seed_age: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k newest known edges of each seed, newest first."""
        start, stop = self.known(seeds, seed_age)
        row, position = ranges(start, torch.minimum(start + k, stop))
        return row, self.edge[position]

    def uniform(self, seeds: Tensor, seed_age: Tensor, k: int, dice: torch.Generator) -> tuple[Tensor, Tensor]:
        """k known edges of each seed, every set of k at even odds, without replacement (all where there are fewer).

        Floyd's algorithm (Bentley and Floyd 1987, doi 10.1145/30401.315746): k draws whatever the degree.
        """
        start, stop = self.known(seeds, seed_age)
        count = stop - start
        draws = torch.rand(k, len(seeds), generator=dice, device=seeds.device, dtype=torch.float64)
        chosen = torch.full_like(draws, -1, dtype=torch.int64)
        for step in range(k):
            last = (count - k).clamp(min=0) + step
            drawn = (draws[step] * (last + 1)).long()
            chosen[step] = torch.where((chosen[:step] == drawn).any(0), last, drawn)
        row, column = torch.nonzero(torch.arange(k, device=seeds.device) < count[:, None], as_tuple=True)
        return row, self.edge[start[row] + chosen[column, row]]

    def recency_weighted(
        self, seeds: Tensor, seed_age: Tensor, k: int, half_life_days: float, dice: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """k known edges of each seed, drawn one after another by weight · 2^(−age/half-life), without replacement.

        Gumbel top-k (Kool et al. 2019, arXiv 1903.06059). Looks at every known edge of the seeds.
        """
        start, stop = self.known(seeds, seed_age)
        if not len(seeds):
            return seeds, seeds
        batch = torch.cumsum(stop - start, 0) // MOST_CANDIDATES
        sizes = torch.unique_consecutive(batch, return_counts=True)[1].tolist()
        parts = [
            self._race(*part, k, half_life_days, dice)
            for part in zip(start.split(sizes), stop.split(sizes), strict=True)
        ]
        first = torch.cumsum(torch.tensor([0, *sizes]), 0).tolist()
        rows = [row + begin for (row, _), begin in zip(parts, first, strict=False)]
        return torch.cat(rows), torch.cat([edge for _, edge in parts])

    def _race(
        self, start: Tensor, stop: Tensor, k: int, half_life_days: float, dice: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The k first of each range when edges arrive at random times, at rates as their weights."""
        row, position = ranges(start, stop)
        edge, first = self.edge[position], (torch.cumsum(stop - start, 0) - (stop - start))[row]
        age = self.age_days[edge]
        wait = torch.empty(len(row), device=row.device).exponential_(generator=dice)
        older = age - age[first]  # than the newest of the range: rates matter within it only, and cannot underflow
        arrival = wait.log() - self.weight[edge].log() + older * (log(2) / half_life_days)
        order = torch.argsort((row << 32) + _as_ordered_integers(arrival), stable=True)
        early = torch.arange(len(row), device=row.device) - first < k
        return row[early], edge[order[early]]


@dataclass(frozen=True)
class Layer:
    """What one layer of a network passes on, as PyG takes it: conv((x, x[:target_count]), edge_index)."""

    edge_index: Tensor  # int64 [2, M], positions of sources and of targets in Neighbourhood.node
    edge: Tensor  # int64 [M], position of the edge as given
    source_count: int  # the first nodes of the neighbourhood are the layer's sources
    target_count: int  # the first of those are its targets


@dataclass(frozen=True)
class Neighbourhood:
    """The nodes within L hops of some seeds, those of earlier hops first. A node asked about at two ages is two nodes."""

    node: Tensor  # int64 [N]
    age_days: Tensor  # int64 [N], of the seeds for which it was found
    seed: Tensor  # int64 [S], position of each seed in node
    layers: tuple[Layer, ...]  # in the order in which they are applied, so the widest first


def hops(index: TimeIndex, seeds: Tensor, seed_age: Tensor, fan_outs: Sequence[int], pick: Pick) -> Neighbourhood:
    """Expands the seeds hop by hop; who is found inherits the seed's age, so no edge is as young as the seed at any hop.

    seeds, seed_age: int64 [S]; pick: `index.most_recent`, or another with its dice bound by functools.partial. As in
    PyG, neighbours are picked once, when a node is first found, and serve all layers (Hamilton et al. 2017, arXiv 1706.02216).
    """
    keys, seed = torch.unique(seeds * SPAN_DAYS + seed_age.clamp(min=0), return_inverse=True)
    frontier, begin, node_counts = keys, 0, [len(keys)]
    sources, targets, edges = [], [], []
    for k in fan_outs:
        age = frontier % SPAN_DAYS
        row, edge = pick(frontier // SPAN_DAYS, age, k)
        sources.append(index.source[edge] * SPAN_DAYS + age[row])
        targets.append(begin + row)
        edges.append(edge)
        found = torch.unique(sources[-1])
        frontier, begin = found[~torch.isin(found, keys)], len(keys)
        keys = torch.cat([keys, frontier])
        node_counts.append(len(keys))
    order = torch.argsort(keys)
    source = order[torch.searchsorted(keys[order], torch.cat(sources))]
    edge_index, edge = torch.stack([source, torch.cat(targets)]), torch.cat(edges)
    edge_counts = torch.cumsum(torch.tensor([len(part) for part in edges]), 0).tolist()
    layers = [
        Layer(edge_index[:, :count], edge[:count], node_counts[hop + 1], node_counts[hop])
        for hop, count in enumerate(edge_counts)
    ]
    return Neighbourhood(keys // SPAN_DAYS, keys % SPAN_DAYS, seed, tuple(reversed(layers)))


@dataclass(frozen=True)
class KnownEdges:
    """The edges from before one day, sorted by target: all that samplers of whole parts of a graph get to see."""

    source: Tensor  # int64 [E]
    target: Tensor  # int64 [E], ascending
    weight: Tensor  # float32 [E], above 0
    edge: Tensor  # int64 [E], position of each edge as given
    node_count: int


def before(
    source: Tensor, target: Tensor, age_days: Tensor, weight: Tensor, node_count: int, before_age: int
) -> KnownEdges:
    """The edges older than `before_age` days, so from strictly before that day."""
    known = torch.nonzero(age_days > before_age).squeeze(1)
    edge = known[torch.argsort(target[known], stable=True)]
    return KnownEdges(source[edge], target[edge], weight[edge], edge, node_count)


def drawn(weight: Tensor, count: int, dice: torch.Generator) -> Tensor:
    """`count` positions drawn with replacement by weight (float [N], at least 0, some above 0): int64 [count]."""
    reach = torch.cumsum(weight.double(), 0)
    at = torch.rand(count, generator=dice, device=weight.device, dtype=torch.float64) * reach[-1]
    last = torch.searchsorted(reach, reach[-1:])  # the last position with a weight, should rounding reach the end
    return torch.minimum(torch.searchsorted(reach, at, right=True), last)


def _as_ordered_integers(values: Tensor) -> Tensor:
    """float32 → int64 within 32 bits, in the same order."""
    bits = values.float().view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()

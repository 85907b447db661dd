"""Who matters to a node: visits of random walks from it, and PageRank."""

from __future__ import annotations

import torch
from torch import Tensor

from models.networks.sampling import KnownEdges, TimeIndex
from models.propagation import offsets

WALKS = 100
STEPS = 4
RESTART = 0.15
DAMPING = 0.85


def step(index: TimeIndex, node: Tensor, age_days: Tensor, dice: torch.Generator) -> Tensor:
    """A neighbour of each node over an edge from before its age, drawn by edge weight: int64 [N], -1 where none is known."""
    start, stop = index.known(node, age_days)
    share = torch.rand(len(node), generator=dice, device=node.device, dtype=torch.float64)
    low, high = index.reach[start], index.reach[stop]
    position = torch.searchsorted(index.reach[1:], low + share * (high - low), right=True)
    position = torch.minimum(torch.maximum(position, start), stop - 1)  # rounding must not reach another node or time
    some = stop > start
    found = torch.full_like(node, -1)
    found[some] = index.source[index.edge[position[some]]]
    return found


def importance(
    index: TimeIndex,
    seeds: Tensor,
    seed_age: Tensor,
    k: int,
    dice: torch.Generator,
    walks: int = WALKS,
    steps: int = STEPS,
    restart: float = RESTART,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The k nodes most visited by short walks from each seed over edges from before its age, and their share of the visits.

    PinSage (Ying et al. 2018, arXiv 1806.01973): α_uv = visits(v) / Σ visits over the k. A walk goes home with probability
    `restart` before a step and at a dead end. counted: bool [V], nodes that may be neighbours (None = all but the seed).
    Returns row of the seed int64 [M], ascending; node int64 [M], most visited first; α float32 [M].
    """
    node_count = len(index.offsets) - 1
    home, age = seeds.repeat_interleave(walks), seed_age.repeat_interleave(walks)
    row = torch.arange(len(seeds), device=seeds.device).repeat_interleave(walks)
    at, visited = home, []
    for _ in range(steps):
        back = torch.rand(len(at), generator=dice, device=at.device) < restart
        found = step(index, torch.where(back, home, at), age, dice)
        at = torch.where(found < 0, home, found)
        visit = at != home
        if counted is not None:
            visit &= counted[at]
        visited.append((row * node_count + at)[visit])
    cell, visits = torch.unique(torch.cat(visited), return_counts=True)
    of, node = cell // node_count, cell % node_count
    order = torch.argsort(of * (walks * steps + 1) - visits, stable=True)
    of, node, visits = of[order], node[order], visits[order]
    first = torch.arange(len(of), device=of.device) - offsets(of, len(seeds))[of] < k
    of, node, visits = of[first], node[first], visits[first].float()
    total = torch.zeros(len(seeds), device=visits.device).index_add_(0, of, visits)
    return of, node, visits / total[of]


def page_rank(edges: KnownEdges, start: Tensor | None = None, damping: float = DAMPING, rounds: int = 50) -> Tensor:
    """r ← (1 − d) p + d · Pᵀ r: the share of time a walk along the edges spends at each node, float32 [V], summing to 1.

    start: p, float [V], where walks (re)start, also from dead ends; None = anywhere (Page et al. 1999), one node's own
    importances = personalised (Haveliwala 2002).
    """
    count = edges.node_count
    home = torch.ones(count, device=edges.weight.device) if start is None else start.float()
    home = (home / home.sum()).double()
    out = torch.zeros_like(home).index_add_(0, edges.source, edges.weight.double())
    share = edges.weight / out[edges.source]
    rank = home
    for _ in range(rounds):
        moved = torch.zeros_like(home).index_add_(0, edges.target, share * rank[edges.source])
        rank = (1 - damping) * home + damping * (moved + home * rank[out == 0].sum())
    return rank.float()

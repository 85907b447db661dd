"""TGN: a memory for each node, written by events in the order of time (Rossi et al. 2020, arXiv 2006.10637)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch_geometric.nn.models.tgn import TimeEncoder

from models.hops import Hop, row_shares
from models.networks.gat import AlongGAT, with_loops
from models.networks.view import View
from models.propagation import Adjacency

SPANS_DAYS = (182, 91, 42, 21, 7, 0)  # the memory is written span by span; the oldest reaches back to the first event
TIME = 8  # numbers that a time is encoded by


class TGN(nn.Module):
    """s_v ← GRU([mean_j w_vj s_j, φ(Δt)], s_v) for each span of time, then attention over all that v hears; z = [x, s, h].

    Of the paper, events of a span are taken as one batch: their messages carry the memory from before it, so no event sees
    another of its span; the message is the mean by weight, φ encodes how long ago the span's newest event of v was. Memory is
    made from the view's events alone, anew for each date, so it never holds what comes after. PyG's `TGNMemory` keeps one
    memory for one moment; training here looks at many dates.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.time = TimeEncoder(TIME)
        self.update = nn.GRUCell(dimension + TIME, dimension)
        with torch.no_grad():  # starts as a running mean of what is heard
            self.update.weight_ih[2 * dimension :] = torch.eye(dimension, dimension + TIME)
            self.update.weight_hh[2 * dimension :] = 0
        self.attention = nn.ModuleList(
            AlongGAT(dimension, dimension, heads=1, add_self_loops=False) for _ in range(layers - 1)
        )

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 1) D]."""
        memory = values
        for hop, touched, age in spans(view):
            heard = torch.cat([hop(memory)[touched], self.time(age[touched])], 1)
            memory = memory.index_copy(0, touched, self.update(heard, memory[touched]))
        heard, told = with_loops(view), values + memory
        every = [values, dropout(memory, self.dropout, self.training)]
        for layer in self.attention:
            told = layer(told, heard)
            every.append(told)
        return torch.cat(every, 1)


def spans(view: View) -> list[tuple[Hop, Tensor, Tensor]]:
    """Of each span with events, the oldest first: the mean over its events, the nodes it has, and each node's newest age.

    Hop [V ← V] by weight, int64 [N], float32 [V] in the square root of days.
    """
    graph, events = view.graph, view.graph.interactions
    weight, place = view.clock.weigh(graph), events.item_index + graph.user_count
    found, oldest = [], graph.oldest_days
    for youngest in SPANS_DAYS:
        mine = (events.age_days > youngest) & (events.age_days <= oldest)
        oldest = min(oldest, youngest)
        if not mine.any():
            continue
        target = torch.cat([events.user_index[mine], place[mine]])
        source = torch.cat([place[mine], events.user_index[mine]])
        order = torch.argsort(target, stable=True)
        share = row_shares(weight[mine].repeat(2)[order], target[order], view.node_count)
        adjacency = Adjacency.build(target[order], source[order], view.node_count, view.node_count)
        age = torch.full((view.node_count,), float(graph.oldest_days), device=weight.device)
        age.scatter_reduce_(0, target, events.age_days[mine].float().repeat(2), "amin")
        age = age.sqrt() if view.clock.half_life_days < torch.inf else torch.zeros_like(age)
        found.append((Hop(adjacency, share), torch.unique(target), age))
    return found

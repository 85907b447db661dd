"""Temporal graph network: a memory of each node that events change one after another (Rossi et al. 2020, arXiv 2006.10637)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, one_hot, relu
from torch_geometric.nn import TransformerConv
from torch_geometric.nn.models.tgn import TimeEncoder

from models.hops import row_shares
from models.networks.gat import Heard, attend, dots
from models.networks.sampling import TimeIndex
from models.networks.view import View
from models.propagation import Adjacency, propagate

TIMES = 8  # numbers that encode a time
SLOWEST_DAYS = 1000.0
LAST = 32  # events of a node that attention looks at
HEADS = 2


@dataclass(frozen=True)
class Events:
    """Who heard what of whom when, sorted by hearer, the newest first."""

    source: Tensor  # int64 [E], places of nodes
    target: Tensor  # int64 [E]
    age_days: Tensor  # int64 [E]
    kind: Tensor  # int64 [E], event type
    weight: Tensor  # float32 [E]

    @classmethod
    def of(cls, view: View) -> tuple[Events, Events]:
        """Every event of the graph, heard by its user and by its item; and of each node only the LAST."""
        events, graph = view.graph.interactions, view.graph
        user, item = events.user_index, events.item_index + graph.user_count
        kind, age = events.event_type_index.repeat(2), events.age_days.long().repeat(2)
        every = cls(torch.cat([item, user]), torch.cat([user, item]), age, kind, view.clock.weigh(graph).repeat(2))
        index = TimeIndex.build(every.source, every.target, age, every.weight, view.node_count)
        nodes = torch.arange(view.node_count, device=age.device)
        return every.where(index.edge), every.where(index.most_recent(nodes, torch.zeros_like(nodes), LAST)[1])

    def where(self, keep: Tensor) -> Events:
        """The events of a mask (bool [E]) or an order (int64 [E])."""
        return Events(**{name: column[keep] for name, column in vars(self).items()})


class TGN(nn.Module):
    """s_i ← GRU([s_i ‖ Σ_j a_ij [s_j ‖ type ‖ φ(time since i's last event)]], s_i), a_ij = w_ij / Σ_j w_ij.

    Events come in rounds, the oldest first; all of a round find the memory as the round before has left it. A round is as
    long as all that came after it and one horizon more. s starts as x. Then h' = attention over a node's last events, with
    type and φ(age) as features of the edges and α_ij ∝ w_ij exp(…); z = [x, s, h¹, …, h^L], h⁰ = s.
    """

    def __init__(self, view: View, dimension: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.types = len(view.graph.event_types)
        self.time = TimeEncoder(TIMES)
        with torch.no_grad():
            self.time.lin.weight.copy_(torch.logspace(0, 1, TIMES, base=1 / SLOWEST_DAYS)[:, None])
        self.update = nn.GRUCell(2 * dimension + self.types + TIMES, dimension)
        told: dict[str, Any] = {"heads": HEADS, "edge_dim": self.types + TIMES}
        self.layers = nn.ModuleList(LastEvents(dimension, dimension // HEADS, **told) for _ in range(layers))
        nn.init.zeros_(self.update.weight_ih[:, 2 * dimension :])  # at first times would drown who is heard
        for layer in self.layers:
            nn.init.zeros_(layer.lin_edge.weight)  # pyright: ignore

    def forward(self, view: View, values: Tensor) -> Tensor:
        """float32 [V, D] → [V, (L + 2) D]."""
        events, last = Events.of(view)
        days = torch.arange(view.graph.oldest_days + 1, device=values.device)
        table = self.table(days)
        memory = self.remember(values, events, table, view.clock.horizon_days)
        every = [values, memory]
        heard = Heard.of(torch.stack([last.source, last.target]), last.weight, view.node_count, view.node_count)
        edge = Adjacency.build(last.target, last.kind * len(days) + last.age_days, view.node_count, len(table))
        for place, layer in enumerate(self.layers):
            memory = dropout(layer(memory, heard, (edge, table)), self.dropout, self.training)
            memory = relu(memory) if place < len(self.layers) - 1 else memory
            every.append(memory)
        return torch.cat(every, 1)

    def table(self, days: Tensor) -> Tensor:
        """What is said of an event of each type, so many days from another date: float32 [types · days, types + TIMES]."""
        kinds = one_hot(torch.arange(self.types, device=days.device)).float()
        times = self.time(days.float())
        return torch.cat([kinds.repeat_interleave(len(days), 0), times.repeat(self.types, 1)], 1)

    def remember(self, memory: Tensor, events: Events, table: Tensor, horizon_days: int) -> Tensor:
        """The memory after all events, from what it was before them: float32 [V, D]."""
        if not len(events.target):
            return memory
        days = len(table) // self.types
        moment = days - 1 - events.age_days
        seen = torch.zeros(len(memory), dtype=torch.int64, device=memory.device)
        turn = torch.log2((events.age_days - 1) // horizon_days + 1.0).long()
        for place in reversed(range(int(turn.max()) + 1)):
            now = turn == place
            part, when = events.where(now), moment[now]
            nodes, row, count = torch.unique_consecutive(part.target, return_inverse=True, return_counts=True)
            share = row_shares(part.weight, row, len(nodes))
            said = part.kind * days + when - seen[part.target]
            told = propagate(Adjacency.build(row, part.source, len(nodes), len(memory)), share, memory)
            about = propagate(Adjacency.build(row, said, len(nodes), len(table)), share, table)
            own = memory[nodes]
            memory = memory.index_copy(0, nodes, self.update(torch.cat([own, told, about], 1), own))
            seen[nodes] = when[torch.cumsum(count, 0) - count]
        return memory


class LastEvents(TransformerConv):
    """PyG's layer along what is `Heard`; features of edges are rows of a table, as an adjacency and the table."""

    def forward(self, x: Tensor, edge_index: Heard, edge_attr: tuple[Adjacency, Tensor]) -> Tensor:  # pyright: ignore
        """float32 [V, D] → the same."""
        edge, table = edge_attr
        heads = [
            linear(values).view(len(values), self.heads, -1)  # pyright: ignore[reportOptionalCall]
            for linear, values in (
                (self.lin_query, x),
                (self.lin_key, x),
                (self.lin_value, x),
                (self.lin_edge, table),
            )
        ]
        query, key, value, said = heads
        logits = dots(edge_index.adjacency, query, key) + dots(edge, query, said)
        alpha = edge_index.shares(logits / self.out_channels**0.5)
        heard = attend(edge_index.adjacency, alpha, value) + attend(edge, alpha, said)
        return heard.flatten(1) + self.lin_skip(x)

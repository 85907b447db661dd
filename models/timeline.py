"""A graph prepared to be looked at as of any earlier date, without sorting its events again for each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import torch
from torch import Tensor

from models.graph import NEVER, Edges, Graph
from models.kernels import WEEK_CONCENTRATION, YEAR_CONCENTRATION, decay, middle_of, phase_match, week_phase, year_phase
from models.propagation import Adjacency, offsets, ranges
from models.settings import ModelSettings

RECENT_DAYS = (3, 7, 14, 30, 90, NEVER - 1)  # windows of the trend, backwards from the date
YEARS_DAYS = (365, 730)  # how far back the same time of the earlier years lies
MOST_AGE_DAYS = 2**31


@dataclass(frozen=True)
class Snapshot:
    """What the network reads about one date and B of the users then known. E events, P distinct user-item pairs."""

    users: Tensor  # int64 [B]
    live: Tensor  # bool [I]
    trend: Tensor  # float32 [I, F]
    history: Adjacency  # (user, event type) row ← item, over the users' events
    kernels: Tensor  # float32 [C, E], each row of `history` sums to 1 under each kernel
    age_days: Tensor  # float32 [E]
    strength: Tensor  # float32 [E]
    event_type_index: Tensor  # int64 [E]
    event_pair: Tensor  # int64 [E], which pair each event belongs to
    pair_row: Tensor  # int64 [P], position in users
    pair_item: Tensor  # int64 [P]
    fact_weight: Tensor  # float32 [edges of Timeline.facts], each item's sum is 1 (0 where it has none)
    timeline: Timeline


class Timeline:
    """The events of a graph sorted by user and by item, once."""

    def __init__(self, graph: Graph, horizon_days: int, settings: ModelSettings) -> None:
        self.graph, self.horizon_days, self.settings = graph, horizon_days, settings
        events = graph.interactions
        self.user_offsets = offsets(events.user_index, graph.user_count)
        group = events.event_type_index * graph.item_count + events.item_index
        self.group_age = torch.sort(group * MOST_AGE_DAYS + events.age_days).values
        facts = graph.item_entities
        order = torch.argsort(facts.source_index, stable=True)
        self.fact_edges = Edges(**{name: column[order] for name, column in vars(facts).items()})

    @cached_property
    def facts(self) -> Adjacency:
        """item ← entity, over all edges ever known; a snapshot weights the later ones 0."""
        edges = self.fact_edges
        return Adjacency.build(edges.source_index, edges.target_index, self.graph.item_count, self.graph.entity_count)

    def at(self, back_days: int, users: Tensor) -> Snapshot:
        """The graph as of `back_days` earlier, for these users (int64 [B], ascending)."""
        graph = self.graph
        events, row = self._events(back_days, users)
        item, event_type = graph.interactions.item_index[events], graph.interactions.event_type_index[events]
        age = (graph.interactions.age_days[events] - back_days).float()
        _, event_pair = torch.unique_consecutive(row * graph.item_count + item, return_inverse=True)
        first = offsets(event_pair, int(event_pair[-1]) + 1 if len(event_pair) else 0)[:-1]
        type_row = row * len(graph.event_types) + event_type
        by_type = torch.argsort(type_row, stable=True)
        strength = graph.interactions.strength[events]
        return Snapshot(
            users=users,
            live=(graph.item_age_days > back_days) & (graph.item_retired_age_days - back_days < 1),
            trend=self.trend(back_days),
            history=Adjacency.build(
                type_row[by_type], item[by_type], len(users) * len(graph.event_types), graph.item_count
            ),
            kernels=self._kernels(back_days, events[by_type], type_row[by_type], age[by_type]),
            age_days=age,
            strength=strength,
            event_type_index=event_type,
            event_pair=event_pair,
            pair_row=row[first],
            pair_item=item[first],
            fact_weight=self._fact_weight(back_days),
            timeline=self,
        )

    def trend(self, back_days: int) -> Tensor:
        """log(1 + events) of each item, per event type, in recent windows and around the same time of earlier years."""
        windows = [(0, days) for days in RECENT_DAYS]
        if self.settings.phase:
            for year in YEARS_DAYS:
                windows += [(year - self.horizon_days, year), (year, year + 28)]
        ends = torch.tensor(windows, device=self.group_age.device).clamp(0, NEVER - 1) + back_days
        group_count = len(self.graph.event_types) * self.graph.item_count
        group = torch.arange(group_count, device=ends.device) * MOST_AGE_DAYS
        position = torch.searchsorted(self.group_age, group[:, None, None] + ends, right=True)
        count = (position[..., 1] - position[..., 0]).reshape(len(self.graph.event_types), self.graph.item_count, -1)
        return torch.log1p(count.float()).permute(1, 0, 2).reshape(self.graph.item_count, -1)

    def known_users(self, back_days: int) -> Tensor:
        """bool [U]: users with an event before that date (a user's oldest event decides)."""
        events = self.graph.interactions
        known = torch.zeros(self.graph.user_count, dtype=torch.bool, device=events.user_index.device)
        known[events.user_index[events.age_days > back_days]] = True
        return known

    def _events(self, back_days: int, users: Tensor) -> tuple[Tensor, Tensor]:
        row, events = ranges(self.user_offsets[users], self.user_offsets[users + 1])
        earlier = self.graph.interactions.age_days[events] > back_days
        return events[earlier], row[earlier]

    def _kernels(self, back_days: int, events: Tensor, row: Tensor, age: Tensor) -> Tensor:
        graph, settings = self.graph, self.settings
        row_count = int(row[-1]) + 1 if len(row) else 0
        youngest = torch.full((row_count,), float(NEVER), device=age.device).scatter_reduce(0, row, age, "amin")
        relative = age - youngest[row]  # rows are normalised, so only this matters, and it cannot underflow
        weights = [decay(relative, half_life) for half_life in (*settings.half_lives_days, float("inf"))]
        if settings.phase:
            day = middle_of(graph.as_of - timedelta(days=back_days), self.horizon_days)
            weights.append(phase_match(graph.interactions.year_phase[events], year_phase(day), YEAR_CONCENTRATION))
            if self.horizon_days < 7:
                weights.append(phase_match(graph.interactions.week_phase[events], week_phase(day), WEEK_CONCENTRATION))
        kernels = torch.stack(weights) * graph.interactions.strength[events]
        total = torch.zeros(len(weights), row_count, device=age.device).index_add(1, row, kernels)
        return kernels / total.clamp(min=1e-30)[:, row]

    def _fact_weight(self, back_days: int) -> Tensor:
        edges = self.fact_edges
        weight = torch.where(edges.age_days > back_days, edges.weight, 0.0)
        total = torch.zeros(self.graph.item_count, device=weight.device).index_add(0, edges.source_index, weight)
        return weight / total.clamp(min=1e-30)[edges.source_index]

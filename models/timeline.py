"""A graph prepared to be looked at as of any earlier date, without sorting its events again for each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor

from models.context import ContextDays
from models.graph import DAY_HOURS, NEVER, Graph
from models.hops import Hop, Links, row_shares
from models.kernels import WEEK_CONCENTRATION, YEAR_CONCENTRATION, decay, middle_of, phase_match, week_phase, year_phase
from models.neighbours import knn_weights
from models.propagation import Adjacency, offsets, ranges
from models.season import SeasonalSales
from models.settings import ModelSettings

RECENT_DAYS = (1, 3, 7, 14, 30, 90, NEVER - 1)  # windows of the trend, backwards from the date
RECENT_HOURS = (1, 3, 6, 12)  # further ones where the horizon is shorter than a week
EARLIER_YEARS_DAYS = 183  # own events older than this tell of the same time of earlier years
MOST_AGE_DAYS = 2**31
WEEK_DAYS = 7
NEIGHBOUR_HALF_LIFE_DAYS = 90.0
ERA_DAYS = 56  # neighbours are found anew at each; within an era they are those of its first day
RECENT_HORIZONS = 4
LEAST_ERAS = 4  # of a history too short for such eras
FOREVER = float("inf")
RECENT, EARLIER_YEARS, CONTEXT = range(3)  # the parts of the trend


@dataclass(frozen=True)
class History:
    """The events of B users before a date, in the users' order: E events of P distinct user-item pairs."""

    age_days: Tensor  # float32 [E]
    strength: Tensor  # float32 [E]
    event_type_index: Tensor  # int32 [E]
    returning: (
        Tensor | None
    )  # float32 [E], the phase of the year comes back: 1 at the time of an event of an earlier year
    pair: Tensor  # int32 [E], which pair the event belongs to
    pair_row: Tensor  # int64 [P], position of the pair's user
    pair_item: Tensor  # int64 [P]
    items: Adjacency  # (user, event type) row ← item, over the events sorted by that row
    kernels: Tensor  # float32 [C, E] in the order of `items`; under each kernel each row sums to 1


@dataclass(frozen=True)
class Snapshot:
    """What the network reads about one date and B of the users then known."""

    users: Tensor  # int64 [B]
    live: Tensor  # bool [I]
    trend: (
        Tensor  # float32 [I, F], log(1 + events) in windows, then the season, then one column per series of the context
    )
    trend_part: Tensor  # int64 [F]: RECENT, EARLIER_YEARS or CONTEXT
    history: History
    item_entities: Hop | None
    entity_entities: Hop | None
    neighbours: Hop | None  # item ← the items bought by the same users
    user_entities: Hop | None
    friends: Hop | None  # user row ← friend row
    friend_history: Hop | None  # friend row ← item

    def seen(self, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The history's pairs whose items are among the columns (bool [P]), as cells of a flat [B, C] matrix (int64).

        columns: int64 [C], ascending item indices; None = all items.
        """
        row, item = self.history.pair_row, self.history.pair_item
        if columns is None:
            return torch.ones_like(row, dtype=torch.bool), row * len(self.live) + item
        column = torch.searchsorted(columns, item).clamp(max=len(columns) - 1)
        kept = columns[column] == item
        return kept, row[kept] * len(columns) + column[kept]


class Timeline:
    """The events and edges of a graph, sorted once."""

    def __init__(self, graph: Graph, horizon_days: int, settings: ModelSettings) -> None:
        self.graph, self.horizon_days, self.settings = graph, horizon_days, settings
        events = graph.interactions
        self.user_offsets = offsets(events.user_index, graph.user_count)
        group = events.event_type_index * graph.item_count + events.item_index
        self.group_age = torch.sort(group * MOST_AGE_DAYS * DAY_HOURS + events.age_hours).values
        self.item_entities = Links(graph.item_entities, graph.item_count, graph.entity_count)
        self.entity_entities = Links(graph.entity_entities, graph.entity_count, graph.entity_count)
        self.user_entities = Links(graph.user_entities, graph.user_count, graph.entity_count)
        decays = settings.half_lives_days if settings.decay else ()
        self.half_lives_days = decays if len(decays) == 1 else (*decays, FOREVER)
        hours = [days * DAY_HOURS for days in RECENT_DAYS]
        shorter = RECENT_HOURS if horizon_days < WEEK_DAYS else ()
        self.recent_hours = [*shorter, *hours] if settings.decay else hours[-1:]
        self.summed_items = _traded(events.item_index) if settings.random_graph else events.item_index
        self._neighbours: dict[int, Hop] = {}
        self._latest: tuple[int, dict[str, Any]] = -1, {}
        self.user_users = Links(graph.user_users, graph.user_count, graph.user_count)
        self.context = ContextDays(graph, horizon_days) if settings.context and graph.context.series else None
        self.season = SeasonalSales(graph, horizon_days) if settings.phase else None
        self.era_days = min(ERA_DAYS, max(horizon_days, -(-graph.oldest_days // LEAST_ERAS)))

    def at(self, back_days: int, users: Tensor) -> Snapshot:
        """The graph as of `back_days` earlier, for these users (int64 [B], ascending)."""
        facts = self.settings.facts
        friends = friend_history = None
        if self.settings.friends and self.user_users:
            friends, friend_history = self._friends(back_days, users)
        return Snapshot(
            users=users,
            history=self._history(back_days, users),
            user_entities=self.user_entities.hop_from(users, back_days) if facts and self.user_entities else None,
            friends=friends,
            friend_history=friend_history,
            **self._shared(back_days),
        )

    def _shared(self, back_days: int) -> dict[str, Any]:
        """What the snapshots of one date have in common; that of the last date asked for is kept."""
        if self._latest[0] != back_days:
            facts = self.settings.facts
            near = self.settings.taste and self.settings.neighbour_count and not self.settings.random_graph
            columns = {RECENT: self.trend(back_days)}
            if self.season:
                columns[EARLIER_YEARS] = self.season.at(back_days)
            if self.context:
                columns[CONTEXT] = self.context.at(back_days)
            trend = torch.cat(list(columns.values()), dim=1)
            parts = [part for part, column in columns.items() for _ in range(column.shape[1])]
            shared = {
                "live": self.live_items(back_days),
                "trend": trend,
                "trend_part": torch.tensor(parts, device=trend.device),
                "item_entities": self.item_entities.hop(back_days) if facts and self.item_entities else None,
                "entity_entities": self.entity_entities.hop(back_days) if facts and self.entity_entities else None,
                "neighbours": self.neighbours(back_days) if near else None,
            }
            self._latest = back_days, shared
        return self._latest[1]

    def neighbours(self, back_days: int) -> Hop:
        """The mean over each item's nearest items, by who bought both before the era of that date began.

        The graph's own date begins an era of its own; no earlier date sees a purchase that it is to predict.
        """
        era = -(-back_days // self.era_days) * self.era_days
        if era not in self._neighbours:
            hop = knn_weights(
                self.graph.back(era),
                NEIGHBOUR_HALF_LIFE_DAYS if self.settings.decay else FOREVER,
                self.settings.neighbour_count,
            )
            row = torch.repeat_interleave(hop.adjacency.row_offsets.diff())
            self._neighbours[era] = Hop(hop.adjacency, row_shares(hop.weight, row, self.graph.item_count))
        return self._neighbours[era]

    def trend(self, back_days: int) -> Tensor:
        """log(1 + events) of each item per event type and recent window: float32 [I, F].

        Counts come from binary search in each item's sorted ages in hours.
        """
        types, items, device = len(self.graph.event_types), self.graph.item_count, self.group_age.device
        ends = torch.tensor([0, *self.recent_hours], device=device) + back_days * DAY_HOURS
        group = torch.arange(types * items, device=device)[:, None] * MOST_AGE_DAYS * DAY_HOURS
        position = torch.searchsorted(self.group_age, group + ends, right=True)
        count = (position[:, 1:] - position[:, :1]).view(types, items, len(self.recent_hours))
        return torch.log1p(count.float()).permute(1, 0, 2).reshape(items, -1)

    def live_items(self, back_days: int) -> Tensor:
        """bool [I]: known before that date and not retired by then."""
        return (self.graph.item_age_days > back_days) & (self.graph.item_retired_age_days - back_days < 1)

    def known_users(self, back_days: int) -> Tensor:
        """bool [U]: users with an event before that date."""
        events = self.graph.interactions
        known = torch.zeros(self.graph.user_count, dtype=torch.bool, device=events.user_index.device)
        known[events.user_index[events.age_days > back_days]] = True
        return known

    def active_users(self, count: int) -> Tensor:
        """Users of events evenly spaced among those of the last horizons, so the more active the likelier: int64, ascending."""
        events = self.graph.interactions
        recent = events.user_index[events.age_days <= RECENT_HORIZONS * self.horizon_days]
        recent = recent if len(recent) else events.user_index
        return torch.unique(recent[:: max(1, len(recent) // count)])

    def _events(self, back_days: int, users: Tensor) -> tuple[Tensor, Tensor]:
        """Each event of these users before the date: its user's row, and its position in the graph's interactions."""
        row, events = ranges(self.user_offsets[users], self.user_offsets[users + 1])
        earlier = self.graph.interactions.age_days[events] > back_days
        return row[earlier], events[earlier]

    def _history(self, back_days: int, users: Tensor) -> History:
        graph, interactions = self.graph, self.graph.interactions
        row, events = self._events(back_days, users)
        item, event_type = interactions.item_index[events], interactions.event_type_index[events]
        pairs, pair = torch.unique_consecutive(row * graph.item_count + item, return_inverse=True)
        types = len(graph.event_types)
        type_row = row * types + event_type
        order = torch.argsort(type_row, stable=True)
        type_row = type_row[order]
        return History(
            age_days=(interactions.age_days[events] - back_days).float(),
            strength=interactions.strength[events],
            event_type_index=event_type.int(),
            returning=self._returning(back_days, events) if self.settings.phase else None,
            pair=pair.int(),
            pair_row=pairs // graph.item_count,
            pair_item=pairs % graph.item_count,
            items=Adjacency.build(type_row, self.summed_items[events[order]], len(users) * types, graph.item_count),
            kernels=self._kernels(back_days, events[order], type_row, len(users) * types),
        )

    def _returning(self, back_days: int, events: Tensor) -> Tensor:
        """float32 [E]: the year's kernel of events of earlier years, 0 for others."""
        phase, age = self.graph.interactions.year_phase[events], self.graph.interactions.age_days[events]
        match = phase_match(phase, year_phase(self._middle(back_days)), YEAR_CONCENTRATION)
        return match * (age - back_days > EARLIER_YEARS_DAYS)

    def _middle(self, back_days: int) -> date:
        """Of the horizon of that date."""
        return middle_of(self.graph.as_of - timedelta(days=back_days), self.horizon_days)

    def _kernels(self, back_days: int, events: Tensor, row: Tensor, row_count: int) -> Tensor:
        """float32 [C, E]: strength times each decay and phase kernel, each row's sum being 1."""
        interactions, settings = self.graph.interactions, self.settings
        age = (interactions.age_days[events] - back_days).float()
        youngest = torch.full((row_count,), float(NEVER), device=age.device).scatter_reduce(0, row, age, "amin")
        relative = age - youngest[row]  # rows are normalised, so only this matters, and it cannot underflow
        weights = [decay(relative, half_life) for half_life in self.half_lives_days]
        if settings.phase:
            day = self._middle(back_days)
            weights.append(phase_match(interactions.year_phase[events], year_phase(day), YEAR_CONCENTRATION))
            if self.horizon_days < WEEK_DAYS:  # a whole week has no phase of the week
                weights.append(phase_match(interactions.week_phase[events], week_phase(day), WEEK_CONCENTRATION))
        return row_shares(torch.stack(weights) * interactions.strength[events], row, row_count)

    def _friends(self, back_days: int, users: Tensor) -> tuple[Hop, Hop]:
        """From the users to their friends, and from those to their items, decayed with the longest half-life."""
        to_friends = self.user_users.hop_from(users, back_days)
        friends, friend = torch.unique(to_friends.adjacency.column.long(), return_inverse=True)
        row, events = self._events(back_days, friends)
        interactions = self.graph.interactions
        longest = max(self.settings.half_lives_days) if self.settings.decay else FOREVER
        weight = decay(interactions.age_days[events] - back_days, longest)
        items = Adjacency.build(row, self.summed_items[events], len(friends), self.graph.item_count)
        own_row = torch.repeat_interleave(to_friends.adjacency.row_offsets.diff())
        return (
            Hop(Adjacency.build(own_row, friend, len(users), len(friends)), to_friends.weight),
            Hop(items, row_shares(weight * interactions.strength[events], row, len(friends))),
        )


def _traded(items: Tensor) -> Tensor:
    """The items of the events, each event with that of another: a random graph of the same degrees."""
    return items[torch.randperm(len(items), generator=torch.Generator().manual_seed(0)).to(items.device)]

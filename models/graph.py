"""The graph as tensors: what every model, baseline and metric in this package reads.

A `Graph` is the content of the `graph.*` tables for one `as_of`. `Graph.back(days)` is the same graph as it was some days
earlier, so snapshots to learn from and holdouts to be judged on come from one object, without another query.
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace
from datetime import date, timedelta
from typing import Any

import torch
from torch import Tensor

DAY_HOURS = 24
NEVER = 2**30  # an age no event reaches: "always known" as an age, "not retired" as minus this


@dataclass(frozen=True)
class Interactions:
    """Dated user-item events, one row per user, item, event type and day, sorted by (user_index, item_index, age_days)."""

    user_index: Tensor  # int64 [E]
    item_index: Tensor  # int64 [E]
    event_type_index: Tensor  # int64 [E], position in Graph.event_types
    age_days: Tensor  # int32 [E], as_of minus event date, at least 1
    strength: Tensor  # float32 [E], above 0
    year_phase: Tensor  # float32 [E], 0 to 1 over the year, of the event's own date
    week_phase: Tensor  # float32 [E], 0 to 1 over the week, 0 = Monday
    hours_to_midnight: (
        Tensor  # int32 [E], from the event to the end of its date, 1 to 24; 24 where its hour is not known
    )

    @property
    def age_hours(self) -> Tensor:
        """Hours from each event to the graph's date, the hour of the event included: int64 [E]."""
        return (self.age_days.long() - 1) * DAY_HOURS + self.hours_to_midnight

    def where(self, keep: Tensor) -> Interactions:
        """The events for which `keep` (bool [E]) holds, in the same order."""
        return Interactions(**{name: column[keep] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Edges:
    """Typed edges from users or items to entities, or between nodes of one kind."""

    source_index: Tensor  # int64 [E]
    target_index: Tensor  # int64 [E]
    relation_index: Tensor  # int64 [E], position in Graph.relations
    weight: Tensor  # float32 [E], above 0
    age_days: Tensor  # int32 [E], since when the edge is known; NEVER = undated, always known

    def known(self) -> Edges:
        """The edges known before the graph's date."""
        keep = self.age_days >= 1
        return Edges(**{name: column[keep] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Context:
    """Dated series: what is or was said of a day, in one or more versions."""

    series: tuple[str, ...]
    series_index: Tensor  # int64 [R], position in series
    day_age_days: Tensor  # int32 [R], of the day the row is about; 0 or below = today or ahead
    known_age_days: Tensor  # int32 [R], since when the row is known; NEVER = always
    value: Tensor  # float64 [R]

    def back(self, days: int) -> Context:
        """What was known `days` earlier, ages counted from that date."""
        keep = self.known_age_days > days
        known = self.known_age_days[keep]
        return Context(
            self.series,
            self.series_index[keep],
            self.day_age_days[keep] - days,
            torch.where(known < NEVER, known - days, known),
            self.value[keep],
        )


_NO_DAYS = torch.zeros(0, dtype=torch.int32)
NO_CONTEXT = Context((), _NO_DAYS.long(), _NO_DAYS, _NO_DAYS, _NO_DAYS.double())


@dataclass(frozen=True)
class Graph:
    """Everything known before `as_of`, as tensors over users 0..U-1, items 0..I-1 and entities 0..N-1.

    Index spaces never change under `back`: an item launched later stays in the numbering but is neither known nor live.
    """

    as_of: date
    user_count: int
    item_count: int
    entity_count: int
    event_types: tuple[str, ...]
    relations: tuple[str, ...]
    interactions: Interactions
    item_age_days: Tensor  # int32 [I], since launch or first event; below 1 = not yet known
    item_retired_age_days: Tensor  # int32 [I], since retirement; below 1 = not retired
    item_features: Tensor  # float32 [I, F], standardised numeric columns
    user_features: Tensor  # float32 [U, G]
    user_segment: Tensor  # int64 [U], the fallback's segment of each user
    item_entities: Edges  # item -> entity
    user_entities: Edges  # user -> entity
    entity_entities: Edges  # entity -> entity
    user_users: Edges  # user -> user, social
    context: Context = NO_CONTEXT

    @property
    def oldest_days(self) -> int:
        """Age of the oldest event, 0 without any."""
        return int(self.interactions.age_days.max()) if len(self.interactions.age_days) else 0

    @property
    def live_items(self) -> Tensor:
        """bool [I]: known before `as_of` and not retired by then."""
        return (self.item_age_days >= 1) & (self.item_retired_age_days < 1)

    def to(self, device: torch.device | str) -> Graph:
        """The same graph with every tensor on `device`."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device)
            if is_dataclass(value):
                return type(value)(**{name: moved(part) for name, part in vars(value).items()})
            return value

        return moved(self)

    def back(self, days: int) -> Graph:
        """The graph as of `days` earlier: later events, items and edges gone, all ages counted from that date."""
        if days == 0:
            return self
        events = self.interactions.where(self.interactions.age_days > days)

        def earlier(edges: Edges) -> Edges:
            dated = edges.age_days < NEVER
            return replace(edges, age_days=torch.where(dated, edges.age_days - days, edges.age_days)).known()

        return replace(
            self,
            as_of=self.as_of - timedelta(days=days),
            interactions=replace(events, age_days=events.age_days - days),
            item_age_days=self.item_age_days - days,
            item_retired_age_days=self.item_retired_age_days - days,
            item_entities=earlier(self.item_entities),
            user_entities=earlier(self.user_entities),
            entity_entities=earlier(self.entity_entities),
            user_users=earlier(self.user_users),
            context=self.context.back(days),
        )

    def targets(self, horizon_days: int, back_days: int) -> tuple[Tensor, Tensor]:
        """Distinct (user_index, item_index) with an event in the `horizon_days` from the date `back_days` before `as_of` on.

        Needs `back_days >= horizon_days`, else the horizon would reach past `as_of` (ValueError).
        """
        if back_days < horizon_days:
            raise ValueError(f"horizon of {horizon_days} days does not fit into the {back_days} days before as_of")
        age = self.interactions.age_days
        events = self.interactions.where((age <= back_days) & (age > back_days - horizon_days))
        pairs = torch.unique(events.user_index * self.item_count + events.item_index)
        return pairs // self.item_count, pairs % self.item_count

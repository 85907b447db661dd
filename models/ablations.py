"""The model without one of its parts, or with that part made meaningless: what the part is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from models.graph import Graph, Interactions
from models.settings import AblationName, ModelSettings

TIMES = ("age_days", "hours_to_midnight", "year_phase", "week_phase")
Ablation = Callable[[ModelSettings, Graph], tuple[ModelSettings, Graph]]


def _with(**changes: object) -> Ablation:
    return lambda settings, graph: (settings.model_copy(update=changes), graph)


def times_shuffled(graph: Graph, seed: int = 0) -> Graph:
    """The same pairs, each at the date of another: whatever time tells is gone, how much is sold on each day is not."""
    events = graph.interactions
    traded = torch.randperm(len(events.age_days), generator=torch.Generator().manual_seed(seed))
    dated = {name: getattr(events, name)[traded] for name in TIMES}
    pair = events.user_index * graph.item_count + events.item_index
    by_age = torch.argsort(dated["age_days"], stable=True)
    order = by_age[torch.argsort(pair[by_age], stable=True)]
    columns = {name: column[order] for name, column in (vars(events) | dated).items()}
    first = torch.zeros_like(graph.item_age_days).scatter_reduce(
        0, columns["item_index"], columns["age_days"], "amax", include_self=False
    )
    known_since = torch.maximum(graph.item_age_days, first)
    return replace(graph, interactions=Interactions(**columns), item_age_days=known_since)


def phase_shuffled(graph: Graph, seed: int = 0) -> Graph:
    """Every event with the time of the year and week of another, at its own age."""
    events = graph.interactions
    traded = torch.randperm(len(events.age_days), generator=torch.Generator().manual_seed(seed))
    phases = {name: getattr(events, name)[traded] for name in ("year_phase", "week_phase")}
    return replace(graph, interactions=replace(events, **phases))


ABLATIONS: dict[AblationName, Ablation] = {
    "almanac without decay": _with(decay=False),
    "almanac with one half-life": _with(half_lives_days=(60.0,), repeat_half_lives_days=(60.0,)),
    "almanac with times shuffled": lambda settings, graph: (settings, times_shuffled(graph)),
    "almanac without phase": _with(phase=False),
    "almanac with phase shuffled": lambda settings, graph: (settings, phase_shuffled(graph)),
    "almanac without graph": _with(taste=False),
    "almanac with random graph": _with(random_graph=True, calibration=False),
    "almanac without repeat": _with(repeat=False),
    "almanac without calibration": _with(calibration=False),
    "almanac without reranker": _with(reranker=False),
    "almanac without hops": _with(facts=False, friends=False, neighbour_count=0),
}

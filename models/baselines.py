"""What the network has to beat, and what serves users without history. Each is also a product of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from inspect import signature
from typing import get_args

import torch
from torch import Tensor

from models.als import fit_als
from models.factorisation import fit_bpr, fit_time_mf
from models.graph import DAY_HOURS, Graph
from models.graph_filter import fit_graph_filter
from models.kernels import YEAR_CONCENTRATION, decay, middle_of, phase_match, year_phase
from models.lightgcn import fit_lightgcn
from models.neighbours import (
    EASE_MOST_ITEMS,
    EASE_RIDGE,
    KNN_NEIGHBOURS,
    Neighbours,
    ease_weights,
    knn_weights,
    user_events,
)
from models.network_ranker import NetworkRanker
from models.ranking import Ranker
from models.seasonal import fit_seasonal, segment_counts
from models.sequence import fit_sequence
from models.settings import ModelSettings, NetworkName
from models.training import fit

FOREVER = 1e4  # horizons; finite, so that JSON has it
TREND = 1e-3  # of the most popular item, beside 1 for an event of the user of today
NEW_USER_HALF_LIFE_DAYS = 30.0
NEW_USER_HORIZON_DAYS = 28


@dataclass(frozen=True)
class Popularity:
    """The same scores for all users of a segment: float32 [S, I]."""

    name: str
    reason: str
    item_scores: Tensor
    user_segment: Tensor  # int64 [U], row of item_scores

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        return self.item_scores[self.user_segment[users]]

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        none = torch.full_like(items, -1)
        return [self.reason] * len(items), none, none


@dataclass(frozen=True)
class PersonalRepeat:
    """Decayed count of the user's own events with the item, and decayed popularity, of which the highest is `trend`."""

    name: str
    graph: Graph
    half_life_days: float
    trend: float = TREND

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        scores = self._popular.repeat(len(users), 1)
        row, event = user_events(self.graph, users)
        events = self.graph.interactions
        weight = events.strength[event] * decay(events.age_days[event], self.half_life_days)
        scores.view(-1).index_add_(0, row * self.graph.item_count + events.item_index[event], weight)
        return scores

    @cached_property
    def _popular(self) -> Tensor:
        popular = popularity_scores(self.graph, self.half_life_days)
        return self.trend * popular / popular.max().clamp(min=1e-30)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        events = self.graph.interactions
        count = self.graph.item_count
        own = torch.isin(users * count + items, events.user_index * count + events.item_index)
        none = torch.full_like(items, -1)
        return ["repeat" if is_own else "trend" for is_own in own.tolist()], torch.where(own, items, none), none


def popularity_scores(graph: Graph, half_life_days: float) -> Tensor:
    """Σ strength · 2^(−age/half-life) of each item's events: float32 [I]."""
    events = graph.interactions
    weight = events.strength * decay(events.age_days, half_life_days)
    return torch.zeros(graph.item_count, device=weight.device).index_add_(0, events.item_index, weight)


def segment_popularity(graph: Graph, phase: bool = True) -> Popularity:
    """For users without history: recent popularity in their segment, and what sold there at this time of earlier years.

    The whole shop counts a tenth, which orders what the segment never bought.
    """
    events = graph.interactions
    weight = decay(events.age_days, NEW_USER_HALF_LIFE_DAYS)
    if phase:
        coming = year_phase(middle_of(graph.as_of, NEW_USER_HORIZON_DAYS))
        weight = weight + phase_match(events.year_phase, coming, YEAR_CONCENTRATION)
    scores = segment_counts(graph, weight * events.strength)
    return Popularity("segment_popularity", "segment", scores + 0.1 * scores.sum(0), graph.user_segment)


Refresh = Callable[[Graph], Ranker]  # the fitted baseline as of a graph's date
Parameters = dict[str, float]  # what a baseline is fitted with, by name


@dataclass(frozen=True)
class Baseline:
    """A simple model with its hyperparameters; half-lives and windows are counted in horizons."""

    options: tuple[Parameters, ...]  # of which the daily holdouts choose; the first is the default
    learn: Callable[..., Refresh]  # (graph, horizon_days, settings, **parameters)
    space: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # what tuning searches, ascending
    most_items: int = 2**31  # larger catalogues go without it

    def fit(self, graph: Graph, horizon_days: int, settings: ModelSettings, parameters: Parameters) -> Refresh:
        """Learns from one graph what `Refresh` applies to a later one; of both it sees the events of the last `window`."""
        days = parameters.get("window", FOREVER) * horizon_days
        own = {name: value for name, value in parameters.items() if name != "window"}
        refresh = self.learn(_latest(graph, days), horizon_days, settings, **own)
        return lambda now: refresh(_latest(now, days))

    @property
    def default(self) -> Parameters:
        """The first option, and a value of everything else that is searched: what `learn` takes unless told."""
        taken = {name: one.default for name, one in signature(self.learn).parameters.items()} | {"window": FOREVER}
        return {name: taken[name] for name in self.space} | self.options[0]


def _latest(graph: Graph, days: float) -> Graph:
    """The graph without events older than so many days, which may be a part of one."""
    if days >= graph.oldest_days:
        return graph
    return replace(
        graph, interactions=graph.interactions.where(graph.interactions.age_hours <= round(days * DAY_HOURS))
    )


def _fit_popularity(
    graph: Graph, horizon_days: int, settings: ModelSettings, name: str, half_life: float = float("inf")
) -> Refresh:
    def refresh(now: Graph) -> Ranker:
        everyone = torch.zeros_like(now.user_segment)
        return Popularity(name, "trend", popularity_scores(now, half_life * horizon_days)[None], everyone)

    return refresh


def _fit_repeat(
    graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float, trend: float = TREND
) -> Refresh:
    return lambda now: PersonalRepeat("personal_repeat", now, half_life * horizon_days, trend)


def _fit_repeat_trend(graph: Graph, horizon_days: int, settings: ModelSettings, epochs: int) -> Refresh:
    plain = settings.model_copy(update={"taste": False, "epochs": epochs})
    network = fit(graph, horizon_days, plain, epochs=epochs)
    return lambda now: NetworkRanker(network, now, "repeat_trend")


def _fit_ease(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    ridge: float = EASE_RIDGE,
    own: float = 0.0,
) -> Refresh:
    weights = ease_weights(graph, half_life * horizon_days, ridge, own)
    return lambda now: Neighbours("ease", now, half_life * horizon_days, weights)


def _fit_knn(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    neighbours: int = KNN_NEIGHBOURS,
    shrinkage: float = 0.0,
    own: float = 0.0,
) -> Refresh:
    weights = knn_weights(graph, half_life * horizon_days, neighbours, shrinkage, own)
    return lambda now: Neighbours("item_knn", now, half_life * horizon_days, weights)


def _fit_network(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    season: float = 0.0,
    dimension: int = 64,
    layers: int = 2,
    epochs: int = 4,
    head: float = 1.0,
    temperature: float = 0.12,
    *,
    name: str,
) -> Refresh:
    from models.networks.training import fit_network  # takes PyG along, and reads this module

    own = {
        "dimension": int(dimension),
        "layers": int(layers),
        "epochs": int(epochs),
        "head": head,
        "temperature": temperature,
    }
    return fit_network(graph, horizon_days, settings, half_life, season, **own, name=name)


WINDOWS = {"window": (4, 13, 26, 52, FOREVER)}
DECAYS = {"half_life": (0.5, 1.0, 2.0, 4.0, 8.0, 13.0, 26.0, 52.0, FOREVER)} | WINDOWS
FACTORS = {"dimension": (32, 64, 128), "ridge": (1e-3, 3e-3, 1e-2), "learning_rate": (3e-3, 1e-2, 3e-2)}


def _half_lives(*horizons: float) -> tuple[Parameters, ...]:
    return tuple({"half_life": half_life} for half_life in horizons)


BASELINES: dict[str, Baseline] = {
    "popularity": Baseline(({},), partial(_fit_popularity, name="popularity")),
    "recent_popularity": Baseline(
        ({"window": 1}, {"window": 4}),
        partial(_fit_popularity, name="recent_popularity"),
        {"window": (1 / 24, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 13)},
    ),
    "decayed_popularity": Baseline(
        _half_lives(1.0, 4.0, 13.0), partial(_fit_popularity, name="decayed_popularity"), DECAYS
    ),
    "personal_repeat": Baseline(_half_lives(4.0, 13.0, 52.0), _fit_repeat, DECAYS | {"trend": (1e-3, 0.03, 0.1, 0.3)}),
    "repeat_trend": Baseline(({"epochs": 3},), _fit_repeat_trend, WINDOWS | {"epochs": (1, 2, 3, 4, 6)}),
    "item_knn": Baseline(
        ({"half_life": 4.0, "own": 3.0, "shrinkage": 30.0},),
        _fit_knn,
        DECAYS
        | {"neighbours": (20, 50, 100, 200), "shrinkage": (0.0, 3.0, 10.0, 30.0, 100.0), "own": (0.0, 1.0, 3.0, 10.0)},
    ),
    "ease": Baseline(
        ({"half_life": 13.0, "own": 1.0}, {"half_life": 4.0, "own": 1.0}),
        _fit_ease,
        DECAYS | {"ridge": (10.0, 30.0, 100.0, 300.0, 1000.0), "own": (0.0, 0.1, 0.3, 1.0, 3.0)},
        most_items=EASE_MOST_ITEMS,
    ),
    "seasonal_popularity": Baseline(
        _half_lives(1.0, 4.0), fit_seasonal, DECAYS | {"prior": (0.1, 0.3, 1.0, 3.0), "segments": (0, 1)}
    ),
    "graph_filter": Baseline(
        _half_lives(4.0, 13.0),
        fit_graph_filter,
        DECAYS | {"rank": (64, 128, 256, 512), "low_pass": (0.0, 0.1, 0.3, 1.0), "item_power": (0.3, 0.4, 0.5, 0.6)},
    ),
    "ials": Baseline(
        _half_lives(4.0, 13.0),
        fit_als,
        DECAYS
        | {
            "factors": (64, 128, 256, 512),
            "unobserved": (0.01, 0.03, 0.1, 0.3, 1.0),
            "ridge": (1e-3, 3e-3, 1e-2, 3e-2),
            "rounds": (4, 8),
        },
    ),
    "lightgcn": Baseline(
        _half_lives(4.0, 13.0),
        fit_lightgcn,
        DECAYS
        | {"dimension": (64, 128, 192), "layers": (1, 2, 3), "temperature": (0.08, 0.12, 0.18), "epochs": (8, 15, 25)},
    ),
    "bpr_mf": Baseline(_half_lives(4.0, 13.0), fit_bpr, DECAYS | FACTORS),
    "time_mf": Baseline(_half_lives(4.0, 13.0), fit_time_mf, DECAYS | FACTORS),
    "sequence": Baseline(
        _half_lives(4.0, 13.0),
        fit_sequence,
        DECAYS | {"length": (20, 50, 100), "temperature": (0.07, 0.1, 0.15), "steps": (200, 400, 800)},
    ),
}
NETWORK_SPACE = DECAYS | {
    "season": (0.0, 0.3, 1.0),
    "layers": (1, 2, 3),
    "dimension": (32, 64, 128),
    "epochs": (2, 4, 8),
}
BASELINES |= {
    name: Baseline(_half_lives(4.0, 13.0), partial(_fit_network, name=name), NETWORK_SPACE)
    for name in get_args(NetworkName)
}

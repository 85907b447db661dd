"""What the network has to beat, and what serves users without history. Each is also a product of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.als import fit_als
from models.factorisation import fit_bpr, fit_time_mf
from models.graph import Graph
from models.graph_filter import fit_graph_filter
from models.kernels import YEAR_CONCENTRATION, decay, middle_of, phase_match, year_phase
from models.lightgcn import fit_lightgcn
from models.neighbours import Neighbours, ease_weights, knn_weights
from models.network_ranker import NetworkRanker
from models.propagation import offsets, ranges
from models.ranking import Ranker
from models.seasonal import fit_seasonal, segment_counts
from models.sequence import fit_sequence
from models.settings import BaselineName, ModelSettings
from models.training import fit

FOREVER = float("inf")
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
    """Decayed count of the user's own events with the item; decayed popularity, below any such count, breaks ties."""

    name: str
    graph: Graph
    half_life_days: float

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
        return 1e-3 * popular / popular.max().clamp(min=1e-30)

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


def user_events(graph: Graph, users: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the users' events in graph.interactions, and for each the user's position in `users`."""
    start = offsets(graph.interactions.user_index, graph.user_count)
    return ranges(start[users], start[users + 1])


Refresh = Callable[[Graph], Ranker]  # the fitted baseline as of a graph's date


@dataclass(frozen=True)
class Baseline:
    """`fit(graph, horizon_days, settings, option)` learns from one graph what `Refresh` applies to a later one."""

    options: tuple[float, ...]  # half-lives in horizons, of which the holdouts choose
    fit: Callable[[Graph, int, ModelSettings, float], Refresh]
    most_items: int = 2**31  # larger catalogues go without it


def _fit_popularity(graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float) -> Refresh:
    name = "popularity" if half_life == FOREVER else "decayed_popularity"

    def refresh(now: Graph) -> Ranker:
        everyone = torch.zeros_like(now.user_segment)
        return Popularity(name, "trend", popularity_scores(now, half_life * horizon_days)[None], everyone)

    return refresh


def _fit_repeat(graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float) -> Refresh:
    return lambda now: PersonalRepeat("personal_repeat", now, half_life * horizon_days)


def _fit_repeat_trend(graph: Graph, horizon_days: int, settings: ModelSettings, epochs: float) -> Refresh:
    plain = settings.model_copy(update={"taste": False, "epochs": int(epochs)})
    network = fit(graph, horizon_days, plain, epochs=plain.epochs)
    return lambda now: NetworkRanker(network, now, "repeat_trend")


def _fit_ease(graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float) -> Refresh:
    weights = ease_weights(graph, half_life * horizon_days)
    return lambda now: Neighbours("ease", now, half_life * horizon_days, weights)


def _fit_knn(graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float) -> Refresh:
    weights = knn_weights(graph, half_life * horizon_days)
    return lambda now: Neighbours("item_knn", now, half_life * horizon_days, weights)


DECAYS = (4.0, 13.0)  # horizons
BASELINES: dict[BaselineName, Baseline] = {
    "popularity": Baseline((FOREVER,), _fit_popularity),
    "decayed_popularity": Baseline((1.0, 4.0, 13.0), _fit_popularity),
    "personal_repeat": Baseline((4.0, 13.0, 52.0), _fit_repeat),
    "repeat_trend": Baseline((3.0,), _fit_repeat_trend),
    "item_knn": Baseline((13.0,), _fit_knn),
    "ease": Baseline((13.0,), _fit_ease, most_items=15_000),  # its dense inverse costs items³
    "seasonal_popularity": Baseline((1.0, 4.0), fit_seasonal),
    "graph_filter": Baseline(DECAYS, fit_graph_filter),
    "ials": Baseline(DECAYS, fit_als),
    "lightgcn": Baseline(DECAYS, fit_lightgcn),
    "bpr_mf": Baseline(DECAYS, fit_bpr),
    "time_mf": Baseline(DECAYS, fit_time_mf),
    "sequence": Baseline(DECAYS, fit_sequence),
}

"""Seasonal popularity: what sells now, and what sold in the coming weeks of earlier years."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import decay
from models.ranking import Ranker
from models.settings import ModelSettings

YEAR_DAYS = 364  # whole weeks, so that a Monday meets a Monday
COMING_DAYS = 28  # at least this many of the coming days of each earlier year
SEASON_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the score; the past chooses
CHOOSING_HORIZONS = 4
PRIOR = 1.0  # events per item


@dataclass(frozen=True)
class SeasonalPopularity:
    """(1 − w) log(recent share) + w log(share in the coming weeks of earlier years), per segment: float32 [S, I] each."""

    name: str
    recent: Tensor
    season: Tensor
    user_segment: Tensor  # int64 [U]
    season_share: float  # w

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        return self.segment_scores[self.user_segment[users]]

    @cached_property
    def segment_scores(self) -> Tensor:
        """float32 [S, I]."""
        return (1 - self.season_share) * self.recent.log() + self.season_share * self.season.log()

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """ "season" for items that sold better in the coming weeks of earlier years than they do now."""
        segment, none = self.user_segment[users], torch.full_like(items, -1)
        in_season = self.season[segment, items] > self.recent[segment, items]
        return ["season" if is_in else "trend" for is_in in in_season.tolist()], none, none


def fit_seasonal(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    prior: float = PRIOR,
    segments: float = 1,
) -> Callable[[Graph], Ranker]:
    """Learns only how much the season counts: the share under which the last horizons' events were likeliest.

    The half-life is that of the recent share. segments: 0 takes the shop as one.
    """

    def popularity(now: Graph, season_share: float) -> SeasonalPopularity:
        now = now if segments else replace(now, user_segment=torch.zeros_like(now.user_segment))
        return seasonal_popularity(now, horizon_days, half_life * horizon_days, season_share, prior)

    likelihood = torch.tensor(
        [_log_likelihood(graph, horizon_days, partial(popularity, season_share=w)) for w in SEASON_SHARES]
    )
    share = SEASON_SHARES[int(likelihood.argmax())]
    return partial(popularity, season_share=share)


def _log_likelihood(graph: Graph, horizon_days: int, popularity: Callable[[Graph], SeasonalPopularity]) -> float:
    """Of the pairs of the last horizons, each by what was known before it, among the items live then."""
    total = 0.0
    for back in range(horizon_days, (CHOOSING_HORIZONS + 1) * horizon_days, horizon_days):
        then = graph.back(back)
        user, item = graph.targets(horizon_days, back)
        user, item = user[then.live_items[item]], item[then.live_items[item]]
        ranker = popularity(then)
        log_share = ranker.segment_scores.masked_fill(~then.live_items, -torch.inf).log_softmax(1)
        total += float(log_share[ranker.user_segment[user], item].double().sum())
    return total


def seasonal_popularity(
    graph: Graph, horizon_days: int, half_life_days: float, season_share: float, prior: float = PRIOR
) -> SeasonalPopularity:
    """Shares of a segment's events, shrunk to those of the whole shop: (n_si + a I p_i) / (n_s + a I).

    So a prior counts as much as a = `prior` events per item. The prior of the shop's season is its recent share, below
    which the season of an item not yet known in the earlier years does not go; that of its recent share is even.
    """
    events, items = graph.interactions, graph.item_count
    earlier, known = (
        torch.zeros_like(events.strength),
        torch.zeros(items, dtype=torch.bool, device=events.strength.device),
    )
    coming_days = max(horizon_days, COMING_DAYS)
    for back in range(YEAR_DAYS, graph.oldest_days + coming_days, YEAR_DAYS):
        earlier += events.strength * ((events.age_days <= back) & (events.age_days > back - coming_days))
        known |= graph.item_age_days > back
    recent, season = (
        segment_counts(graph, weight) for weight in (events.strength * decay(events.age_days, half_life_days), earlier)
    )
    shop_recent = _shares(recent.sum(0), torch.full_like(recent[0], 1 / items), prior)
    shop_season = _shares(season.sum(0), shop_recent, prior)
    shop_season = torch.where(known, shop_season, torch.maximum(shop_season, shop_recent))
    return SeasonalPopularity(
        "seasonal_popularity",
        _shares(recent, shop_recent, prior),
        _shares(season, shop_season, prior),
        graph.user_segment,
        season_share,
    )


def segment_counts(graph: Graph, weight: Tensor) -> Tensor:
    """Sum of the events' weights: float32 [S, I]."""
    segments = int(graph.user_segment.max()) + 1 if graph.user_count else 1
    cell = graph.user_segment[graph.interactions.user_index] * graph.item_count + graph.interactions.item_index
    counts = torch.zeros(segments * graph.item_count, device=weight.device).index_add_(0, cell, weight)
    return counts.view(segments, -1)


def _shares(counts: Tensor, expected: Tensor, events_per_item: float) -> Tensor:
    """Posterior shares. counts: float32 [..., I]; expected: float32 [I], above 0, worth so many events per item."""
    events = events_per_item * len(expected)
    return (counts + events * expected) / (counts.sum(-1, keepdim=True) + events)

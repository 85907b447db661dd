"""Seasonal popularity against shares done by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
import torch

from models.seasonal import fit_seasonal, seasonal_popularity
from models.settings import ModelSettings
from tests.models.canary import assert_blind_to_the_future, assert_same_bits_twice
from tests.models.tiny import tiny_graph, with_items_known

INFINITE = float("inf")


def test_shares_by_hand() -> None:
    """Two items, three recent events and one in the coming weeks of last year: a prior counts as two events."""
    graph = with_items_known(tiny_graph([(0, 0, 3), (1, 0, 4), (1, 1, 5), (0, 1, 350)]))
    ranker = seasonal_popularity(graph, 7, INFINITE, 0.25)
    recent = [(2 + 1) / (4 + 2), (2 + 1) / (4 + 2)]
    assert ranker.recent[0].tolist() == pytest.approx([(2 + 2 * share) / (4 + 2) for share in recent])
    season = [(0 + 2 * recent[0]) / (1 + 2), (1 + 2 * recent[1]) / (1 + 2)]
    assert ranker.season[0].tolist() == pytest.approx(
        [(0 + 2 * season[0]) / (1 + 2), (1 + 2 * season[1]) / (1 + 2)], rel=1e-6
    )
    expected = 0.75 * ranker.recent.log() + 0.25 * ranker.season.log()
    torch.testing.assert_close(ranker.scores(torch.tensor([0, 1]), "for_you"), expected.repeat(2, 1))


def test_what_sold_in_the_coming_weeks_of_last_year_comes_back_and_what_sold_after_them_does_not() -> None:
    now = [(user, item, 10) for user in range(6) for item in range(4)]
    last_year = [(user, 1, 350) for user in range(6)] + [(user, 2, 370) for user in range(6)]
    graph = with_items_known(
        tiny_graph([*now, *last_year, *((user, 3, 320) for user in range(6))], as_of=date(2023, 11, 1))
    )
    ranker = seasonal_popularity(graph, 7, 28.0, 0.3)
    scores = ranker.scores(torch.tensor([0]), "for_you")[0]
    assert int(scores.argmax()) == 1
    reasons, _, _ = ranker.explain(torch.zeros(4, dtype=torch.int64), torch.arange(4), "for_you")
    assert reasons == ["trend", "season", "trend", "trend"]


def test_an_item_not_on_sale_last_year_is_not_held_against() -> None:
    """Items 0 and 1 sell alike now; item 0 was known last year and did not sell in these weeks, item 1 is new."""
    events = [(user, item, 5) for user in range(5) for item in (0, 1)] + [(user, 2, 350) for user in range(5)]
    graph = replace(tiny_graph(events), item_age_days=torch.tensor([900, 100, 900]).int())
    scores = seasonal_popularity(graph, 7, 28.0, 0.3).scores(torch.tensor([0]), "for_you")[0]
    assert scores[1] > scores[0]


def test_a_segment_follows_the_shop_until_it_has_events_of_its_own() -> None:
    events = [(user, 0, 5) for user in range(8)] + [(8, 1, 5 + age) for age in range(20)]
    graph = replace(tiny_graph(events, users=11), user_segment=torch.tensor([0] * 8 + [1, 1, 2]))
    best = seasonal_popularity(graph, 7, INFINITE, 0.25).scores(torch.tensor([0, 9, 10]), "for_you").argmax(1)
    assert best.tolist() == [0, 1, 1]


def test_a_larger_prior_draws_a_segment_nearer_to_the_shop_and_without_segments_all_are_alike() -> None:
    """Segment 1 buys item 1 only, the larger segment 0 item 0 only."""
    events = [(user, 0, 5) for user in range(8)] + [(8, 1, 5 + age) for age in range(3)]
    graph = replace(tiny_graph(events), user_segment=torch.tensor([0] * 8 + [1]))
    scores = {
        (prior, segments): fit_seasonal(graph, 7, ModelSettings(), 1e4, prior, segments)(graph).scores(
            torch.tensor([0, 8]), "for_you"
        )
        for prior, segments in ((0.1, 1), (10.0, 1), (0.1, 0))
    }
    gap = {key: (of[:, 0] - of[:, 1]).tolist() for key, of in scores.items()}
    assert gap[0.1, 1][0] > gap[10.0, 1][0] > gap[10.0, 1][1] > gap[0.1, 1][1]
    assert gap[0.1, 0][0] == gap[0.1, 0][1]


def test_the_season_counts_where_the_last_weeks_followed_it_and_not_where_they_did_not() -> None:
    """Each week of the year has its own item; this year keeps to them, or sells one item throughout."""
    earlier = [(user, age // 7 % 52, age) for age in range(370, 730) for user in range(5)]
    graphs = [
        with_items_known(tiny_graph(earlier + [(user, item(age), age) for age in range(1, 370) for user in range(5)]))
        for item in (lambda age: age // 7 % 52, lambda age: 51)
    ]
    shares = [fit_seasonal(graph, 7, ModelSettings(), 4.0)(graph).season_share for graph in graphs]  # pyright: ignore
    assert shares[0] >= 0.3
    assert shares[1] <= 0.1


def test_the_future_changes_nothing() -> None:
    assert_blind_to_the_future(fit_seasonal)


def test_the_same_input_gives_the_same_bits() -> None:
    assert_same_bits_twice(fit_seasonal)

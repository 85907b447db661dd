"""Baselines against sums done by hand, EASE against its closed form."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from math import inf
from typing import get_args

import pytest
import torch

from models import factorisation
from models.baselines import BASELINES, segment_popularity
from models.evaluation import evaluate
from models.neighbours import EASE_RIDGE, Neighbours, ease_weights, history_weights, knn_weights
from models.ranking import Ranker
from models.settings import ModelSettings, RivalName
from tests.models.tiny import tiny_graph

SETTINGS = ModelSettings(dimension=4, epochs=1)
EVENTS = [(0, 0, 10), (0, 0, 20), (0, 1, 10), (1, 1, 30), (1, 2, 10), (2, 2, 40), (2, 3, 10), (2, 1, 20)]
GRAPH = tiny_graph(EVENTS)


def fitted(name: str, **parameters: float) -> Ranker:
    return BASELINES[name].fit(GRAPH, 7, SETTINGS, parameters)(GRAPH)


def test_popularity_counts_events_and_its_decay_halves_them_every_half_life() -> None:
    users = torch.tensor([0, 2])
    assert fitted("popularity").scores(users, "for_you").tolist() == [[2, 3, 2, 1]] * 2
    decayed = [1 / 2 + 1 / 4, 1 / 2 + 1 / 8 + 1 / 4, 1 / 2 + 1 / 16, 1 / 2]
    assert fitted("decayed_popularity", half_life=10 / 7).scores(users, "for_you")[0].tolist() == pytest.approx(decayed)


def test_a_window_may_be_a_part_of_a_day() -> None:
    events = tiny_graph([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 2, 2)])
    hours = torch.tensor([7, 6, 3, 1], dtype=torch.int32)  # in the order of users and items
    graph = replace(events, interactions=replace(events.interactions, hours_to_midnight=hours))
    for window, expected in ((1 / 8, [1, 0, 0]), (1 / 4, [1, 1, 0]), (1, [2, 1, 0]), (2, [2, 1, 1])):
        refresh = BASELINES["recent_popularity"].fit(graph, 1, SETTINGS, {"window": window})
        assert refresh(graph).scores(torch.tensor([0]), "for_you").tolist() == [expected], window


def test_only_events_of_the_window_are_learned_from_and_are_history() -> None:
    ages = GRAPH.interactions.age_days
    recent = replace(GRAPH, interactions=GRAPH.interactions.where(ages <= 21))
    users = torch.tensor([0, 1, 2])
    assert fitted("recent_popularity", window=3).scores(users, "for_you").tolist() == [[2, 2, 1, 1]] * 3
    for name in ("ease", "item_knn", "personal_repeat"):
        expected = BASELINES[name].fit(recent, 7, SETTINGS, {"half_life": 13.0})(recent).scores(users, "for_you")
        assert torch.equal(fitted(name, half_life=13.0, window=3).scores(users, "for_you"), expected)
        assert not torch.equal(fitted(name, half_life=13.0).scores(users, "for_you"), expected)


def test_personal_repeat_puts_own_items_by_decayed_count_before_popular_ones() -> None:
    ranker = fitted("personal_repeat", half_life=10 / 7)
    order = ranker.scores(torch.tensor([0, 1]), "for_you").argsort(1, descending=True)
    assert order.tolist() == [[0, 1, 2, 3], [2, 1, 0, 3]]
    reasons, item, _ = ranker.explain(torch.tensor([0, 0]), torch.tensor([0, 3]), "for_you")
    assert reasons == ["repeat", "trend"]
    assert item.tolist() == [0, -1]


def test_the_trend_is_added_to_own_counts_with_its_weight() -> None:
    scores = fitted("personal_repeat", half_life=10 / 7, trend=0.5).scores(torch.tensor([0]), "for_you")[0]
    popular = fitted("decayed_popularity", half_life=10 / 7).scores(torch.tensor([0]), "for_you")[0]
    own = torch.tensor([1 / 2 + 1 / 4, 1 / 2, 0, 0])
    torch.testing.assert_close(scores, own + 0.5 * popular / popular.max())


def test_history_weights_are_roots_of_decayed_counts() -> None:
    weights = history_weights(GRAPH, torch.tensor([0]), 10.0)
    assert weights[0].tolist() == pytest.approx([0.75**0.5, 0.5**0.5, 0, 0])


@pytest.mark.parametrize("ridge", [EASE_RIDGE, 1.0])
def test_ease_solves_its_regression_with_a_zero_diagonal(ridge: float) -> None:
    """B minimises |X − XB|² + λ|B|² with diagonal 0: the gradient vanishes off the diagonal."""
    history = history_weights(GRAPH, torch.arange(3), 10.0).double()
    weights = ease_weights(GRAPH, 10.0, ridge).double()
    gradient = history.T @ (history @ weights - history) + ridge * weights
    assert weights.diagonal().abs().max() == 0
    assert (gradient - gradient.diagonal().diag()).abs().max() < 1e-5
    assert weights.abs().max() > 1e-4


def test_item_knn_is_the_cosine_of_item_columns() -> None:
    history = history_weights(GRAPH, torch.arange(3), 10.0)
    unit = history / history.norm(dim=0)
    cosine = (unit.T @ unit).fill_diagonal_(0)
    scores = Neighbours("item_knn", GRAPH, 10.0, knn_weights(GRAPH, 10.0)).scores(torch.arange(3), "discover")
    torch.testing.assert_close(scores, history @ cosine)


def test_shrinkage_takes_more_from_the_cosines_of_rare_items() -> None:
    history = history_weights(GRAPH, torch.arange(3), 10.0)
    length = history.norm(dim=0)
    shrunk = history.T @ history / (length[:, None] * length + 0.5)
    shrunk.diagonal().mul_(3.0)
    hop = knn_weights(GRAPH, 10.0, shrinkage=0.5, own=3.0)
    torch.testing.assert_close(
        Neighbours("item_knn", GRAPH, 10.0, hop).scores(torch.arange(3), "for_you"), history @ shrunk
    )


@pytest.mark.parametrize("name", ["item_knn", "ease"])
def test_an_own_item_counts_as_its_own_neighbour_and_is_then_its_own_reason(name: str) -> None:
    users, items = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 3])
    without, alone = (fitted(name, half_life=13.0, own=own).scores(users, "for_you") for own in (0.0, 1.0))
    changed = without != alone
    assert torch.equal(changed, history_weights(GRAPH, users, 10.0) > 0)
    reasons, cause, _ = fitted(name, half_life=13.0, own=1.0).explain(users, items, "for_you")
    assert reasons == ["repeat"] * 3
    assert torch.equal(cause, items)


@pytest.mark.parametrize("name", ["item_knn", "ease"])
def test_the_reason_of_a_neighbour_model_is_an_item_of_the_history(name: str) -> None:
    reasons, item, _ = fitted(name, half_life=13.0).explain(torch.tensor([0, 1]), torch.tensor([2, 3]), "discover")
    assert reasons[0] == "taste"
    assert item[0] == 1
    assert all((reason == "taste") == (cause in (1, 2)) for reason, cause in zip(reasons, item.tolist(), strict=True))


def test_repeat_trend_knows_no_taste() -> None:
    ranker = fitted("repeat_trend", epochs=1)
    scores = ranker.scores(torch.tensor([0, 1, 2]), "discover")
    assert torch.equal(scores[0], scores[1])
    reasons, _, _ = ranker.explain(torch.tensor([0, 0]), torch.tensor([0, 3]), "for_you")
    assert set(reasons) <= {"repeat", "trend", "season"}


def test_newcomers_get_what_their_segment_buys_and_then_what_the_shop_buys() -> None:
    graph = replace(tiny_graph(EVENTS, users=5), user_segment=torch.tensor([0, 0, 1, 0, 1]))
    order = segment_popularity(graph, phase=False).scores(torch.tensor([3, 4]), "for_you").argsort(1, descending=True)
    assert order.tolist() == [[0, 1, 2, 3], [3, 1, 2, 0]]


def test_newcomers_in_october_get_what_sold_last_october_only_with_phase() -> None:
    winter = [(user, 0, age) for user in range(5) for age in (350, 355, 360)]
    now = [(user, 1, 40) for user in range(5)]
    graph = tiny_graph(winter + now, users=6, as_of=date(2023, 10, 1))
    best = {
        phase: int(segment_popularity(graph, phase).scores(torch.tensor([5]), "for_you").argmax())
        for phase in (True, False)
    }
    assert best == {True: 0, False: 1}


def test_every_baseline_that_can_be_named_is_there_and_can_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorisation, "STEPS", 5)
    assert set(get_args(RivalName)) == set(BASELINES)
    evaluation = evaluate(GRAPH, 7, True, SETTINGS, baselines=tuple(BASELINES))
    for name in ("for_you", "discover"):
        assert set(evaluation.user_ndcg[name]) == {"almanac", *BASELINES}


def test_weights_between_items_and_a_history_are_those_that_scores_are_made_of() -> None:
    graph = tiny_graph([(user, item, 1 + (user + item) % 9) for user in range(12) for item in range(user % 3, 8, 2)])
    items, history = torch.tensor([3, 0, 5]), torch.tensor([4, 1, 4, 7])
    for weights in (ease_weights(graph, 30.0), knn_weights(graph, 30.0, 3)):
        ranker = Neighbours("filter", graph, 30.0, weights)
        alone = tiny_graph([(item, item, 1) for item in range(graph.item_count)])  # user: one item of a history alone
        each = Neighbours("filter", alone, inf, weights).scores(torch.arange(graph.item_count), "for_you")
        assert torch.allclose(ranker.between(items, history), each[history][:, items].T)

"""Baselines against sums done by hand, EASE against its closed form."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import get_args

import pytest
import torch

from models.baselines import BASELINES, FOREVER, segment_popularity
from models.evaluation import evaluate
from models.neighbours import EASE_RIDGE, Neighbours, ease_weights, history_weights, knn_weights
from models.ranking import Ranker
from models.settings import BaselineName, ModelSettings
from tests.models.tiny import tiny_graph

SETTINGS = ModelSettings(dimension=4, epochs=1)
EVENTS = [(0, 0, 10), (0, 0, 20), (0, 1, 10), (1, 1, 30), (1, 2, 10), (2, 2, 40), (2, 3, 10), (2, 1, 20)]
GRAPH = tiny_graph(EVENTS)


def fitted(name: str, half_life_days: float) -> Ranker:
    return BASELINES[name].fit(GRAPH, 7, SETTINGS, half_life_days / 7)(GRAPH)


def test_popularity_counts_events_and_its_decay_halves_them_every_half_life() -> None:
    users = torch.tensor([0, 2])
    assert fitted("popularity", FOREVER).scores(users, "for_you").tolist() == [[2, 3, 2, 1]] * 2
    decayed = [1 / 2 + 1 / 4, 1 / 2 + 1 / 8 + 1 / 4, 1 / 2 + 1 / 16, 1 / 2]
    assert fitted("decayed_popularity", 10.0).scores(users, "for_you")[0].tolist() == pytest.approx(decayed)


def test_personal_repeat_puts_own_items_by_decayed_count_before_popular_ones() -> None:
    ranker = fitted("personal_repeat", 10.0)
    order = ranker.scores(torch.tensor([0, 1]), "for_you").argsort(1, descending=True)
    assert order.tolist() == [[0, 1, 2, 3], [2, 1, 0, 3]]
    reasons, item, _ = ranker.explain(torch.tensor([0, 0]), torch.tensor([0, 3]), "for_you")
    assert reasons == ["repeat", "trend"]
    assert item.tolist() == [0, -1]


def test_history_weights_are_roots_of_decayed_counts() -> None:
    weights = history_weights(GRAPH, torch.tensor([0]), 10.0)
    assert weights[0].tolist() == pytest.approx([0.75**0.5, 0.5**0.5, 0, 0])


def test_ease_solves_its_regression_with_a_zero_diagonal() -> None:
    """B minimises |X − XB|² + λ|B|² with diagonal 0: the gradient vanishes off the diagonal."""
    history = history_weights(GRAPH, torch.arange(3), 10.0).double()
    weights = ease_weights(GRAPH, 10.0).double()
    gradient = history.T @ (history @ weights - history) + EASE_RIDGE * weights
    assert weights.diagonal().abs().max() == 0
    assert (gradient - gradient.diagonal().diag()).abs().max() < 1e-5
    assert weights.abs().max() > 1e-4


def test_item_knn_is_the_cosine_of_item_columns() -> None:
    history = history_weights(GRAPH, torch.arange(3), 10.0)
    unit = history / history.norm(dim=0)
    cosine = (unit.T @ unit).fill_diagonal_(0)
    scores = Neighbours("item_knn", GRAPH, 10.0, knn_weights(GRAPH, 10.0)).scores(torch.arange(3), "discover")
    torch.testing.assert_close(scores, history @ cosine)


@pytest.mark.parametrize("name", ["item_knn", "ease"])
def test_the_reason_of_a_neighbour_model_is_an_item_of_the_history(name: str) -> None:
    reasons, item, _ = fitted(name, 90.0).explain(torch.tensor([0, 1]), torch.tensor([2, 3]), "discover")
    assert reasons[0] == "taste"
    assert item[0] == 1
    assert all((reason == "taste") == (cause in (1, 2)) for reason, cause in zip(reasons, item.tolist(), strict=True))


def test_repeat_trend_knows_no_taste() -> None:
    ranker = fitted("repeat_trend", 1.0)
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


def test_every_baseline_that_can_be_named_is_there_and_can_be_judged() -> None:
    assert set(get_args(BaselineName)) == set(BASELINES)
    evaluation = evaluate(GRAPH, 7, True, SETTINGS, baselines=tuple(BASELINES))
    for name in ("for_you", "discover"):
        assert set(evaluation.user_ndcg[name]) == {"almanac", *BASELINES}

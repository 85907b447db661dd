"""The graph filter against its formula in dense matrices."""

from __future__ import annotations

import pytest
import torch

from models.graph_filter import LOW_PASS, fit_graph_filter
from models.neighbours import history_weights
from models.settings import ModelSettings
from tests.models.canary import assert_blind_to_the_future, assert_same_bits_twice, assert_tastes_are_told_apart, shop
from tests.models.tiny import tiny_graph


@pytest.mark.parametrize("power", [0.5, 0.3])
def test_scores_are_those_of_the_dense_formula(power: float) -> None:
    graph, users = shop(), torch.arange(30)
    history = history_weights(graph, users, 70.0).double()
    user_degree, item_degree = history.sum(1), history.sum(0)
    normal = history / (user_degree[:, None].sqrt() * item_degree**power)
    first = torch.linalg.svd(normal).Vh[:2].T
    low_pass = item_degree[:, None] ** -power * (first @ first.T) * item_degree**power
    expected = history @ (normal.T @ normal + LOW_PASS * low_pass)
    found = fit_graph_filter(graph, 7, ModelSettings(), 10.0, rank=2, item_power=power)(graph).scores(users, "for_you")
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_an_item_without_events_scores_zero() -> None:
    graph = tiny_graph([(0, 0, 3), (1, 1, 3), (1, 0, 9)], users=3, items=3)
    scores = fit_graph_filter(graph, 7, ModelSettings(), 5.0)(graph).scores(torch.arange(3), "for_you")
    assert scores[:, 2].tolist() == [0, 0, 0]
    assert scores[2].tolist() == [0, 0, 0]
    assert scores[0, 0] > scores[0, 1] > 0


def test_a_user_who_comes_later_is_served_from_own_history() -> None:
    events = [(user, item + 3 * (user % 2), age) for user in range(12) for item in range(3) for age in (30, 40)]
    graph = tiny_graph([*events, (12, 4, 3)])
    scores = fit_graph_filter(graph.back(7), 7, ModelSettings(), 90.0)(graph).scores(torch.tensor([12]), "discover")[0]
    assert scores[3:].min() > scores[:3].max() + 0.01


def test_tastes_are_told_apart() -> None:
    assert_tastes_are_told_apart(fit_graph_filter)


def test_the_future_changes_nothing() -> None:
    assert_blind_to_the_future(fit_graph_filter)


def test_the_same_input_gives_the_same_bits() -> None:
    assert_same_bits_twice(fit_graph_filter)

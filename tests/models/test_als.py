"""Alternating least squares against its own objective."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from models.als import RIDGE, UNOBSERVED, fit_als, solve
from models.settings import ModelSettings
from tests.models.canary import assert_blind_to_the_future, assert_same_bits_twice, assert_tastes_are_told_apart
from tests.models.tiny import tiny_graph


def objective(confidence: Tensor, rows: Tensor, fixed: Tensor, unobserved: float, ridge: float) -> Tensor:
    predicted = rows @ fixed.T
    ridges = ridge * (confidence.sum(1) + unobserved * len(fixed))
    fit = (confidence * (1 - predicted).square()).sum() + unobserved * predicted.square().sum()
    return fit + (ridges * rows.square().sum(1)).sum()


@pytest.mark.parametrize("weights", [(UNOBSERVED, RIDGE), (1.0, 0.03)])
@pytest.mark.parametrize("dimension", [2, 5, 40])
def test_the_solution_is_where_the_objective_is_flat(dimension: int, weights: tuple[float, float]) -> None:
    """Histories of 0 to 12 items, both shorter and longer than the vectors."""
    dice = torch.Generator().manual_seed(0)
    confidence = torch.rand(9, 12, generator=dice) * (
        torch.arange(12) < torch.tensor([[0, 1, 2, 3, 4, 6, 8, 11, 12]]).T
    )
    fixed = torch.randn(12, dimension, generator=dice)
    rows = solve(csr_array(confidence.numpy()), fixed, *weights).requires_grad_()
    objective(confidence, rows, fixed, *weights).backward()
    assert rows.grad is not None
    assert rows.grad.abs().max() < 1e-4
    assert rows[0].abs().max() == 0
    assert rows[1:].abs().amax(1).min() > 1e-3


def test_a_user_who_comes_after_the_training_is_served_from_own_history() -> None:
    events = [(user, item + 3 * (user % 2), age) for user in range(12) for item in range(3) for age in (30, 40)]
    graph = tiny_graph([*events, (12, 4, 3)])
    scores = fit_als(graph.back(7), 7, ModelSettings(), 90.0)(graph).scores(torch.tensor([12]), "discover")[0]
    assert scores[3:].min() > scores[:3].max() + 0.01


def test_decayed_confidence_prefers_what_was_bought_lately() -> None:
    early, late = ([(user, item, age) for user in range(9)] for item, age in ((0, 200), (1, 2)))
    graph = tiny_graph([*early, *late, *((user, 2, 300) for user in range(9, 20))])
    for half_life, fresher in ((3.0, True), (float("inf"), False)):
        scores = fit_als(graph, 7, ModelSettings(), half_life)(graph).scores(torch.tensor([0]), "for_you")[0]
        assert bool(scores[1] > scores[0] + 1e-3) == fresher


def test_tastes_are_told_apart() -> None:
    assert_tastes_are_told_apart(fit_als)


def test_the_future_changes_nothing() -> None:
    assert_blind_to_the_future(fit_als)


def test_the_same_input_gives_the_same_bits() -> None:
    assert_same_bits_twice(fit_als)

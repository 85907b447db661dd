"""Matrix factorisation with and without time, in shops whose tastes are known."""

from __future__ import annotations

import pytest
import torch

from models import factorisation
from models.factorisation import fit_bpr, fit_time_mf, softmax_loss
from models.settings import ModelSettings
from tests.models.canary import Fit, assert_blind_to_the_future, assert_same_bits_twice, assert_tastes_are_told_apart
from tests.models.tiny import tiny_graph

FITS = pytest.mark.parametrize("fit", [fit_bpr, fit_time_mf])


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorisation, "STEPS", 60)
    monkeypatch.setattr(factorisation, "EVENTS_PER_STEP", 256)


def test_the_loss_is_the_cross_entropy_of_all_items() -> None:
    queries, items = torch.randn(3, 4), torch.randn(6, 4)
    row, item, weight = torch.tensor([0, 0, 2]), torch.tensor([1, 5, 3]), torch.tensor([0.5, 1, 2])
    entropy = torch.nn.functional.cross_entropy(queries[row] @ items.T, item, reduction="none")
    found = softmax_loss(queries, items, row, item, weight, torch.Generator())
    torch.testing.assert_close(found, (weight * entropy).sum())


def test_with_drawn_items_the_loss_is_near_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = torch.Generator().manual_seed(0)
    queries, items = torch.randn(1, 4, generator=dice) / 2, torch.randn(2000, 4, generator=dice)
    pair = torch.tensor([0]), torch.tensor([7]), torch.ones(1)
    whole = softmax_loss(queries, items, *pair, dice)
    monkeypatch.setattr(factorisation, "ITEMS_PER_STEP", 500)
    drawn = torch.stack([softmax_loss(queries, items, *pair, dice) for _ in range(50)])
    assert float(drawn.mean()) == pytest.approx(float(whole), abs=0.05)


def test_only_with_time_the_newest_bias_of_an_item_counts() -> None:
    """Item 0 sold to everybody a year ago and item 1 to everybody last month; the rest sells evenly to give contrast."""
    even = [(user, 2 + user % 4, age) for user in range(40) for age in (5, 365)]
    events = [(user, 0, 365) for user in range(40)] + [(user, 1, 5) for user in range(40)] + even
    graph = tiny_graph(events)
    gap = {}
    for fit in (fit_bpr, fit_time_mf):
        ranker = fit(graph, 7, ModelSettings(), float("inf"))(graph)
        gap[fit] = float(ranker.bias[1] - ranker.bias[0])  # pyright: ignore
    assert gap[fit_time_mf] > 0.15
    assert abs(gap[fit_bpr]) < 0.1


def test_what_a_user_bought_is_never_the_worse_of_a_pair() -> None:
    """Where everybody has everything there is no pair to learn from."""
    graph = tiny_graph([(user, item, 3) for user in range(4) for item in range(5) for _ in range(user + 1)])
    ranker = fit_bpr(graph, 7, ModelSettings(), 5.0)(graph)
    assert ranker.bias.abs().max() == 0  # pyright: ignore


def test_a_drifting_user_is_scored_by_where_the_taste_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user goes over from one third of the items to the next."""
    monkeypatch.setattr(factorisation, "STEPS", 120)
    events = [
        (user, 4 * ((user + (age < 350)) % 3) + age // 12 % 4, age) for user in range(21) for age in range(10, 700, 12)
    ]
    graph, users = tiny_graph(events), torch.arange(21)
    right = {}
    for fit in (fit_bpr, fit_time_mf):
        scores = fit(graph, 7, ModelSettings(), float("inf"))(graph).scores(users, "for_you").view(21, 3, 4).mean(2)
        right[fit] = float((scores.argmax(1) == (users + 1) % 3).float().mean())
    assert right[fit_time_mf] == 1
    assert right[fit_bpr] < 0.9


def test_a_user_without_events_is_scored_by_the_items_biases() -> None:
    graph = tiny_graph([(user, user % 2, 3) for user in range(9)], users=10)
    ranker = fit_bpr(graph, 7, ModelSettings(), 5.0)(graph)
    torch.testing.assert_close(ranker.scores(torch.tensor([9]), "for_you")[0], ranker.bias)  # pyright: ignore


@FITS
def test_tastes_are_told_apart(fit: Fit) -> None:
    assert_tastes_are_told_apart(fit)


@FITS
def test_the_future_changes_nothing(fit: Fit) -> None:
    assert_blind_to_the_future(fit)


@FITS
def test_the_same_input_gives_the_same_bits(fit: Fit) -> None:
    assert_same_bits_twice(fit)

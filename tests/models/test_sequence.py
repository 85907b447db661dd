"""The sequence model, in a shop where what comes next is certain."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from models import sequence
from models.sequence import Sequence, Visits, fit_sequence
from models.settings import ModelSettings
from tests.models.canary import assert_blind_to_the_future, assert_same_bits_twice, shop
from tests.models.tiny import tiny_graph

CYCLE, LENGTH = 7, 12
fit_short = partial(fit_sequence, length=LENGTH, steps=60)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "WINDOWS_PER_STEP", 32)
    monkeypatch.setattr(sequence, "DIMENSION", 16)


def cycles() -> list[tuple[int, int, int]]:
    """Every week the next item of the cycle; users start anywhere and stop after 3, 5, 7 or 9 weeks."""
    return [
        (user, (user + week) % CYCLE, 7 * (10 - week)) for user in range(28) for week in range(3 + user // CYCLE * 2)
    ]


def test_what_follows_the_last_item_is_expected() -> None:
    graph = tiny_graph(cycles())
    users = torch.arange(28)
    best = fit_short(graph, 7, ModelSettings(), 100.0)(graph).scores(users, "for_you").argmax(1)
    assert best[:21].tolist() == [(user + 3 + user // CYCLE * 2) % CYCLE for user in range(21)]


def test_a_later_graph_moves_the_users_on_without_training() -> None:
    graph = tiny_graph([*cycles(), *((user, (user + 3) % CYCLE, 2) for user in range(CYCLE))])
    scores = fit_short(graph.back(6), 7, ModelSettings(), 100.0)(graph).scores(torch.arange(CYCLE), "for_you")
    assert scores.argmax(1).tolist() == [(user + 4) % CYCLE for user in range(CYCLE)]


def test_no_position_sees_a_later_one() -> None:
    network = Sequence(9, LENGTH, 0.1).eval()
    one = torch.arange(2 * LENGTH).view(2, LENGTH) % 9
    other = one.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 9
    with torch.no_grad():
        seen, changed = network(one), network(other)
    assert torch.equal(seen[:, :5], changed[:, :5])
    assert not torch.equal(seen[:, 5:], changed[:, 5:])


def test_events_are_in_order_of_users_and_dates() -> None:
    visits = Visits.of(tiny_graph([(0, 5, 3), (0, 1, 9), (0, 4, 9), (2, 0, 1)]))
    assert visits.item.tolist() == [1, 4, 5, 0]
    assert visits.visit.tolist() == [0, 0, 1, 2]
    assert visits.user_offsets.tolist() == [0, 3, 3, 4]
    place, count = visits.windows(torch.tensor([3, 3, 4]), torch.tensor([0, 3, 3]), LENGTH)
    assert count.tolist() == [3, 0, 1]
    assert place[0, :3].tolist() == [0, 1, 2]


def test_a_user_without_history_has_no_expectation() -> None:
    graph = shop()
    scores = fit_short(graph, 7, ModelSettings(), 10.0)(graph).scores(torch.tensor([29, 30]), "for_you")
    assert scores[1].abs().max() == 0
    assert scores[0].abs().max() > 0


def test_the_future_changes_nothing() -> None:
    assert_blind_to_the_future(partial(fit_short, steps=4))


def test_the_same_input_gives_the_same_bits() -> None:
    assert_same_bits_twice(partial(fit_short, steps=4))

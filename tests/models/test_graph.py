"""Looking back in time: what comes later must not be seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.graph import Graph, Interactions
from models.settings import ModelSettings
from models.timeline import Timeline
from tests.models.tiny import edges, tiny_graph

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 60)), min_size=1, unique=True)
BACK = 30


def tensors_of(value: object) -> list[Tensor]:
    """All tensors in a dataclass, in order, however deep."""
    if isinstance(value, Tensor):
        return [value]
    return (
        [tensor for part in vars(value).values() for tensor in tensors_of(part)] if hasattr(value, "__dict__") else []
    )


def assert_same(one: object, other: object) -> None:
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=True))
    assert pairs
    assert all(torch.equal(a, b) for a, b in pairs)


@given(EVENTS)
@settings(deadline=None, max_examples=50)
def test_events_added_after_a_date_do_not_change_the_graph_as_of_that_date(events: list[tuple[int, int, int]]) -> None:
    earlier = [event for event in events if event[2] > BACK]
    facts = edges([(0, 0), (1, 1)], age_days=40)
    with_all = tiny_graph(events, users=4, items=5, item_entities=facts)
    without = tiny_graph(earlier, users=4, items=5, item_entities=facts)
    known = with_all.back(BACK).item_age_days.clamp(min=0)
    assert torch.equal(known, without.back(BACK).item_age_days.clamp(min=0))
    assert_same(with_all.back(BACK).interactions, without.back(BACK).interactions)
    assert_same(with_all.back(BACK).item_entities, without.back(BACK).item_entities)


@given(EVENTS, st.sampled_from([7, 28]))
@settings(deadline=None, max_examples=50)
def test_a_snapshot_of_the_past_is_the_snapshot_of_the_past_graph(
    events: list[tuple[int, int, int]], horizon_days: int
) -> None:
    graph = tiny_graph(events, users=4, items=5, item_entities=edges([(0, 0), (1, 0), (4, 1)], age_days=45))
    graph = replace(graph, user_users=edges([(0, 1), (2, 1), (2, 3)]), user_entities=edges([(0, 1)], age_days=20))
    users = torch.arange(4)
    chosen = ModelSettings()
    now, past = Timeline(graph, horizon_days, chosen), Timeline(graph.back(BACK), horizon_days, chosen)
    one, other = now.at(BACK, users), past.at(0, users)
    for name in ("live", "trend", "history"):
        assert_same(getattr(one, name), getattr(other, name))
    values = torch.randn(graph.entity_count, 3)
    for name in ("item_entities", "user_entities"):
        sums = [0.0 if hop is None else hop(values) for hop in (getattr(one, name), getattr(other, name))]
        assert torch.allclose(torch.as_tensor(sums[0]), torch.as_tensor(sums[1]))


def test_targets_are_the_distinct_pairs_of_the_horizon_and_nothing_else() -> None:
    graph = tiny_graph([(0, 1, 10), (0, 1, 9), (0, 2, 11), (1, 1, 4), (1, 2, 3)])
    user, item = graph.targets(horizon_days=7, back_days=10)
    assert list(zip(user.tolist(), item.tolist(), strict=True)) == [(0, 1), (1, 1)]


def test_a_horizon_that_reaches_past_as_of_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon of 7 days"):
        tiny_graph([(0, 1, 10)]).targets(horizon_days=7, back_days=6)


def test_an_undated_edge_is_known_at_every_date_and_a_dated_one_from_its_date_on() -> None:
    graph = tiny_graph([(0, 0, 90)], item_entities=edges([(0, 0)]))
    assert len(graph.back(80).item_entities.weight) == 1
    graph = tiny_graph([(0, 0, 90)], item_entities=edges([(0, 0)], age_days=30))
    assert [len(graph.back(days).item_entities.weight) for days in (29, 30)] == [1, 0]


def test_an_item_is_live_between_its_launch_and_its_retirement() -> None:
    graph = replace(tiny_graph([(0, 0, 50)]), item_retired_age_days=torch.tensor([20], dtype=torch.int32))
    assert [bool(graph.back(days).live_items) for days in (50, 49, 20, 19)] == [False, True, True, False]


def test_moving_a_graph_keeps_all_its_tensors() -> None:
    graph = tiny_graph([(0, 0, 50)], item_entities=edges([(0, 0)]))
    moved = graph.to("cpu")
    assert isinstance(moved, Graph)
    assert isinstance(moved.interactions, Interactions)
    assert_same(graph, moved)

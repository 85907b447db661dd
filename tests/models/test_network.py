"""The network's formula, written out pair by pair, against what it computes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import cos, exp, pi
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.kernels import YEAR_CONCENTRATION, middle_of, year_phase
from models.network import Network
from models.settings import ModelSettings
from models.timeline import ERA_DAYS, NEIGHBOUR_HALF_LIFE_DAYS, RECENT, Snapshot, Timeline
from models.training import Example, loss, new_network
from tests.models.tiny import AS_OF, edges, tiny_graph

TYPES = ("view", "purchase")
EVENTS = [(0, 0, 3, 1), (0, 0, 40, 1), (0, 1, 5, 0), (1, 1, 2, 0), (1, 2, 9, 1), (1, 2, 300, 0), (2, 3, 500, 1)]
GRAPH = replace(
    tiny_graph(EVENTS, event_types=TYPES, item_entities=edges([(0, 0), (0, 1), (2, 1)])),
    user_entities=edges([(1, 0)]),
    user_users=edges([(0, 1), (0, 2), (2, 1)]),
    entity_entities=edges([(0, 1)]),
)
SETTINGS = ModelSettings(dimension=3, half_lives_days=(7.0, 60.0), dropout=0.0)
HORIZON = 7


@pytest.fixture
def network() -> Network:
    """Random in every parameter, in double precision."""
    torch.manual_seed(1)
    network = new_network(Timeline(GRAPH, HORIZON, SETTINGS), SETTINGS).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.train()


def item_vectors(network: Network) -> Tensor:
    entity = network.entity.clone()
    entity[0] = entity[0] + network.entity[1]
    items = network.item.clone()
    items[0] = items[0] + (entity[0] + entity[1]) / 2
    items[2] = items[2] + entity[1]
    cosines = history_cosines()
    near = torch.stack([(row[:, None] * items).sum(0) / row.sum().clamp(min=1e-30) for row in cosines])
    return items + network.near * near


def history_cosines() -> Tensor:
    """Cosine of two items' columns of √(Σ 2^(−age/90)) over users, 0 for an item with itself."""
    columns = torch.zeros(4, 3, dtype=torch.float64)
    for user, item, age, _ in EVENTS:
        columns[item, user] += 2 ** (-age / NEIGHBOUR_HALF_LIFE_DAYS)
    return torch.nan_to_num(
        torch.cosine_similarity(columns.sqrt()[:, None], columns.sqrt()[None], dim=2)
    ).fill_diagonal_(0)


def kernel_values(age: int, phase: float) -> list[float]:
    """The decays of 7 and 60 days, for ever, and the time of the year."""
    coming = year_phase(middle_of(AS_OF, HORIZON))
    return [2 ** (-age / 7), 2 ** (-age / 60), 1, exp(YEAR_CONCENTRATION * (cos(2 * pi * (coming - phase)) - 1))]


def history_mean(user: int, kernel: int, event_type: int | None, items: Tensor) -> Tensor:
    """The kernel-weighted mean of the items of a user's events of one type (None: of all), 0 without any."""
    events = GRAPH.interactions
    total, mean = 0.0, torch.zeros(SETTINGS.dimension, dtype=torch.float64)
    for position, owner in enumerate(events.user_index.tolist()):
        if owner == user and event_type in (None, int(events.event_type_index[position])):
            phase = float(events.year_phase[position])
            weight = kernel_values(int(events.age_days[position]), phase)[kernel]
            total += weight
            mean = mean + weight * items[events.item_index[position]]
    return mean / total if total else mean


def written_out(network: Network, user: int, item: int, head: int) -> Tensor:
    """The score of DESIGN.md, "The model", with loops."""
    items = item_vectors(network)
    sources = [history_mean(user, kernel, kind, items) for kernel in range(4) for kind in range(2)]
    entity_0 = network.entity[0] + network.entity[1]
    sources.append(entity_0 if user == 1 else torch.zeros_like(entity_0))
    friends = {0: [1, 2], 1: [], 2: [1]}[user]
    mean = [history_mean(friend, 1, None, items) for friend in friends]
    sources.append(torch.stack(mean).mean(0) if mean else torch.zeros_like(entity_0))
    vector = (network.mix[head] * torch.stack(sources)).sum(0)
    taste = network.log_temperature[head].exp() * (normalize(vector, dim=0) * normalize(items[item], dim=0)).sum()
    snapshot = Timeline(GRAPH, HORIZON, SETTINGS).at(0, torch.arange(3))
    excitation = torch.zeros((), dtype=torch.float64)
    for owner, bought, age, kind in EVENTS:
        if (owner, bought) == (user, item):
            memory = (network.log_repeat[kind].exp() * 2 ** (-age / network.log_half_life[kind].exp())).sum()
            phase = year_phase(AS_OF - timedelta(days=age))
            returning = network.log_return[kind].exp() * kernel_values(age, phase)[-1] if age > 183 else 0
            excitation = excitation + memory + returning
    repeat = torch.log1p(excitation) if head == 0 else 0
    weight = torch.cat([network.trend[head, :-2], network.season[head]])  # the season's two columns are the last
    return taste + (weight * snapshot.trend[item]).sum() + repeat


def doubled() -> Snapshot:
    """The snapshot of all three users, in double precision."""
    return _doubled(Timeline(GRAPH, HORIZON, SETTINGS).at(0, torch.arange(3)))


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{name: _doubled(getattr(value, name)) for name in value.__dataclass_fields__})
    return value


def test_the_score_is_the_written_out_sum_of_taste_repeat_and_trend(network: Network) -> None:
    average = torch.zeros(2, SETTINGS.dimension, dtype=torch.float64)
    for head, logits in enumerate(network(doubled(), average=average)):
        expected = torch.stack([torch.stack([written_out(network, u, i, head) for i in range(4)]) for u in range(3)])
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)


def test_the_taste_of_the_average_user_is_nothing_so_that_popularity_is_left_to_the_trend(network: Network) -> None:
    tastes = torch.stack(network(doubled())) - network.item_side(doubled()).trend[:, None]
    tastes[0].view(-1).index_add_(0, doubled().seen()[1], -network.repeats(doubled()))
    torch.testing.assert_close(tastes.mean(1), torch.zeros(2, 4, dtype=torch.float64))


def test_some_columns_of_the_scores_are_those_columns_of_all(network: Network) -> None:
    columns = torch.tensor([1, 3])
    for whole, part in zip(network(doubled()), network(doubled(), columns=columns), strict=True):
        torch.testing.assert_close(part, whole[:, columns])


def test_the_trend_counts_events_of_each_type_in_each_window() -> None:
    counts = Timeline(GRAPH, HORIZON, SETTINGS).trend(0).exp() - 1
    view, purchase = counts.split(7, dim=1)
    assert view[1].round().tolist() == [0, 1, 2, 2, 2, 2, 2]  # 1, 3, 7, 14, 30, 90 days, for ever; ages 2 and 5
    assert purchase[0].round().tolist() == [0, 1, 1, 1, 1, 2, 2]  # ages 3 and 40


def test_hours_count_where_the_horizon_is_shorter_than_a_week() -> None:
    events = replace(GRAPH.interactions, hours_to_midnight=torch.ones_like(GRAPH.interactions.age_days))
    graph = replace(GRAPH, interactions=events)
    view, purchase = (Timeline(graph, 6, SETTINGS).trend(2).exp() - 1).split(11, dim=1)
    assert purchase[0].round().tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]  # 1, 3, 6 and 12 hours; the last of age 3
    assert view[1].round().tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]  # age 5
    at_midnight = replace(graph, interactions=replace(events, hours_to_midnight=24 * events.hours_to_midnight))
    assert not Timeline(at_midnight, 6, SETTINGS).trend(2)[:, [0, 1, 2, 3]].any()
    assert torch.equal(Timeline(at_midnight, 7, SETTINGS).trend(2), Timeline(graph, 7, SETTINGS).trend(2))


def test_without_phase_neither_items_nor_users_have_a_season() -> None:
    snapshot = Timeline(GRAPH, HORIZON, SETTINGS.model_copy(update={"phase": False})).at(0, torch.arange(3))
    assert snapshot.history.returning is None
    assert snapshot.trend_part.tolist() == [RECENT] * 14


def test_the_loss_is_the_softmax_over_all_items_for_one_list_and_over_new_ones_for_the_other(network: Network) -> None:
    row, item = torch.tensor([0, 0, 1]), torch.tensor([0, 3, 3])  # (0, 0) is a repeat, the others are new
    for_you, discover = network(doubled())
    shares = for_you.log_softmax(1)
    expected = -(shares[0, 0] + shares[0, 3]) / 2**0.5 - shares[1, 3]
    seen = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    shares = discover.masked_fill(seen, -torch.inf).log_softmax(1)
    expected = expected - shares[0, 3] - shares[1, 3]
    measured = loss(network, Example(doubled(), row, item, weight=0.5))
    torch.testing.assert_close(measured, 0.5 * expected / 3)


def test_drawn_negatives_estimate_the_loss_over_all_items(network: Network) -> None:
    network = network.float()
    snapshot = Timeline(GRAPH, HORIZON, SETTINGS).at(0, torch.arange(3))
    example = Example(snapshot, torch.tensor([0, 0, 1]), torch.tensor([0, 3, 3]), weight=1.0)
    whole = loss(network, example)
    for chance in ([0.25] * 4, [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]):
        estimates = torch.stack([loss(network, replace(example, chance=torch.tensor(chance))) for _ in range(20)])
        torch.testing.assert_close(estimates.mean(), whole, rtol=0.01, atol=0)
        assert len(estimates.unique()) > 1


def test_a_target_that_was_not_drawn_competes_with_what_was(network: Network) -> None:
    network = network.float()
    snapshot = Timeline(GRAPH, HORIZON, SETTINGS).at(0, torch.arange(3))
    example = Example(snapshot, torch.tensor([2]), torch.tensor([0]), 1.0, torch.tensor([0.0, 0.5, 0.5, 0.0]))
    scores = network(snapshot, ("for_you",))[0][2]
    expected = -(scores[0] - torch.logsumexp(scores[:3], 0)) / 3
    estimates = torch.stack([loss(network, example, ("for_you",)) for _ in range(20)])
    torch.testing.assert_close(estimates.mean(), expected, rtol=0.01, atol=0)


def test_dead_items_have_no_chance(network: Network) -> None:
    graph = replace(GRAPH, item_retired_age_days=torch.tensor([-1, 1, -1, -1], dtype=torch.int32))
    for logits in network.float()(Timeline(graph, HORIZON, SETTINGS).at(0, torch.arange(3))):
        assert torch.isinf(logits).nonzero()[:, 1].unique().tolist() == [1]


def test_neighbours_of_a_past_date_know_nothing_of_its_own_era() -> None:
    timeline = Timeline(GRAPH, HORIZON, SETTINGS)
    for back_days in (1, 7, ERA_DAYS, ERA_DAYS + 1):
        era = ERA_DAYS if back_days <= ERA_DAYS else 2 * ERA_DAYS
        before = Timeline(GRAPH.back(era), HORIZON, SETTINGS).neighbours(0)
        torch.testing.assert_close(timeline.neighbours(back_days).weight, before.weight)
    assert not torch.equal(timeline.neighbours(0).weight, timeline.neighbours(1).weight)

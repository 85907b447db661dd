"""What the network learns, in worlds whose rules are known."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import torch

from models import training
from models.artifact import carry_over, pack, unpack
from models.graph import Graph
from models.lists import lists
from models.network import Network, learned_half_lives_days
from models.network_ranker import NetworkRanker
from models.ranking import top_k
from models.settings import ModelSettings
from models.timeline import Timeline
from models.training import examples, fit
from tests.models.tiny import edges, tiny_graph, with_items_known

SMALL = ModelSettings(dimension=8, epochs=4, learning_rate=2e-2)
WINTER, SUMMER = (0, 1, 2), (3, 4, 5)


def two_tastes(seed: int = 0) -> Graph:
    """Even users buy items 0-5 (entity 0), odd users 6-11 (entity 1); 12 and 13 are new, of entities 0 and 1."""
    dice = random.Random(seed)
    events = {(u, dice.randrange(6) + 6 * (u % 2), dice.randint(1, 140)) for u in range(40) for _ in range(12)}
    facts = edges([(item, item // 6) for item in range(12)] + [(12, 0), (13, 1)])
    graph = tiny_graph(events, items=14, item_entities=facts)
    known = graph.item_age_days.clone()
    known[12:] = 5
    return replace(graph, item_age_days=known)


def two_seasons(as_of: date) -> Graph:
    """Weekly purchases over three years: items 0-2 from October to March, 3-5 from April to September."""
    dice = random.Random(1)
    events = []
    for user in range(30):
        for age in range(1 + user % 7, 3 * 365, 7):
            month = date.fromordinal(as_of.toordinal() - age).month
            events.append((user, dice.choice(SUMMER if 4 <= month <= 9 else WINTER), age))
    return with_items_known(tiny_graph(events, as_of=as_of), age_days=2000)


def test_training_twice_gives_the_same_bits() -> None:
    graph = two_tastes()
    one, other = (fit(graph, 7, SMALL, epochs=2).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit(two_tastes(), 7, SMALL, epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_events_after_a_date_do_not_change_what_is_learned_as_of_it() -> None:
    graph = two_tastes()
    events = graph.interactions
    earlier = replace(graph, interactions=events.where(events.age_days > 28))
    one, other = (fit(now.back(28), 7, SMALL, epochs=1).state_dict() for now in (graph, earlier))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sales_before_launch_or_after_retirement_are_no_targets() -> None:
    graph = two_tastes()
    known, retired = graph.item_age_days.clone(), graph.item_retired_age_days.clone()
    known[0], retired[1] = 1, 100
    graph = replace(graph, item_age_days=known, item_retired_age_days=retired)
    targets = torch.cat(
        [example.item for example in examples(Timeline(graph, 7, SMALL), SMALL) if example.weight > 0.7]
    )
    assert 2 in targets
    assert 0 not in targets
    assert 1 not in targets
    assert all(torch.isfinite(tensor).all() for tensor in fit(graph, 7, SMALL, epochs=1).state_dict().values())


def test_a_large_catalogue_is_learned_from_drawn_items_and_a_bounded_number_of_users(monkeypatch) -> None:
    dates = len(range(7, two_tastes().oldest_days, 7))
    monkeypatch.setattr(training, "MOST_WHOLE", 1)
    monkeypatch.setattr(training, "NEGATIVES", 8)
    monkeypatch.setattr(training, "SCORES_PER_EPOCH", 5 * dates * 8)
    steps = training.examples(Timeline(two_tastes(), 7, SMALL), SMALL)
    assert {len(step.snapshot.users) for step in steps} == {5}
    for step in steps:
        assert step.chance is not None
        torch.testing.assert_close(step.chance.sum(), torch.ones(()))
        assert ((step.chance > 0) == step.snapshot.live).all()
    assert fit(two_tastes(), 7, SMALL, epochs=1).item.isfinite().all()


def test_an_item_without_events_to_learn_from_has_no_embedding_of_its_own() -> None:
    item = fit(two_tastes(), 7, SMALL, epochs=1).item
    assert (item[12:] == 0).all() and (item[:12] != 0).all()


def test_an_item_newer_than_every_date_learned_from_has_no_embedding_of_its_own() -> None:
    graph = two_tastes()
    launched = graph.item_age_days.clone()
    launched[3], launched[4] = 7, 8  # it was known to none, and to one of the dates
    item = fit(replace(graph, item_age_days=launched), 7, SMALL, epochs=1).item
    assert (item[3] == 0).all() and (item[4] != 0).all()


def test_a_packed_network_scores_the_same_bits() -> None:
    graph = two_tastes()
    network = fit(graph, 7, SMALL, epochs=1)
    users = torch.arange(graph.user_count)
    again = unpack(pack(network))
    for name in ("for_you", "discover"):
        before, after = (NetworkRanker(it, graph).scores(users, name) for it in (network, again))
        assert torch.equal(before, after)


def test_progress_ends_at_the_number_of_steps_it_announced_and_epochs_are_reported() -> None:
    steps, epochs = [], []
    fit(
        two_tastes(),
        7,
        SMALL,
        epochs=3,
        on_epoch=lambda epoch, _: epochs.append(epoch),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert epochs == [1, 2, 3]
    assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))


def test_a_history_too_short_to_learn_from_still_gives_repeats_and_popular_items() -> None:
    graph = tiny_graph([(0, 0, 2), (1, 1, 1), (2, 1, 1), (3, 1, 3)])
    ranker = NetworkRanker(fit(graph, 7, SMALL.model_copy(update={"taste": False}), epochs=1), graph)
    items, _ = top_k(ranker, graph, torch.arange(4), 2, "for_you", True)
    assert items.tolist() == [[0, 1], [1, 0], [1, 0], [1, 0]]


def test_new_items_find_their_users_by_their_facts_alone() -> None:
    graph = two_tastes()
    network = fit(graph, 7, SMALL, epochs=4)
    users = torch.arange(graph.user_count)
    scores = NetworkRanker(network, graph).scores(users, "discover")
    prefers_entity_0 = scores[:, 12] > scores[:, 13]
    assert (prefers_entity_0 == (users % 2 == 0)).float().mean() > 0.9
    without = NetworkRanker(network, replace(graph, item_entities=edges())).scores(users, "discover")
    moved = (scores - without)[:, 12]
    assert moved[users % 2 == 0].mean() > 0 > moved[users % 2 == 1].mean()


@pytest.mark.parametrize(("phase", "expected"), [(True, WINTER), (False, SUMMER)])
def test_the_list_turns_with_the_season_only_if_it_knows_the_time_of_year(
    phase: bool, expected: tuple[int, ...]
) -> None:
    settings = SMALL.model_copy(update={"phase": phase, "snapshot_every_days": 14})
    turn = two_seasons(date(2023, 10, 1))
    network = fit(turn, 28, settings, epochs=4)
    items, _ = top_k(NetworkRanker(network, turn), turn, torch.arange(turn.user_count), 3, "for_you", True)
    share = torch.isin(items, torch.tensor(expected)).float().mean()
    assert share > 0.8
    summer = turn.back(63)
    items, _ = top_k(NetworkRanker(network, summer), summer, torch.arange(turn.user_count), 3, "for_you", True)
    assert torch.isin(items, torch.tensor(SUMMER)).float().mean() > 0.8


def test_planted_half_lives_of_a_self_exciting_process_are_recovered() -> None:
    """Each event multiplies its pair's rate by 1 + 40 · 2^(−age/h), with h = 4 days after views and 40 after purchases."""
    dice = torch.Generator().manual_seed(5)
    users, items, days, half_lives = 300, 40, 400, torch.tensor([4.0, 40.0])
    memory = torch.zeros(2, users, items)
    events = []
    for day in range(days):
        rate = 1 + 40 * memory.sum(0)
        active = torch.nonzero(torch.rand(users, generator=dice) < 0.15).squeeze(1)
        chosen = torch.multinomial(rate[active], 1, generator=dice).squeeze(1)
        kind = torch.randint(2, (len(active),), generator=dice)
        memory[kind, active, chosen] += 1
        memory *= torch.exp2(-1 / half_lives)[:, None, None]
        events += zip(active.tolist(), chosen.tolist(), [days - day] * len(active), kind.tolist(), strict=True)
    graph = with_items_known(tiny_graph(events, event_types=("view", "purchase")))
    settings = SMALL.model_copy(update={"taste": False, "phase": False, "epochs": 8})
    learned = learned_half_lives_days(fit(graph, 1, settings, epochs=8))
    assert 2 < learned["view"] < 8
    assert 20 < learned["purchase"] < 80


def test_each_reason_names_what_stands_behind_it() -> None:
    graph = two_tastes()
    ranker = NetworkRanker(fit(graph, 7, SMALL, epochs=4), graph)
    users = torch.arange(graph.user_count)
    owned = set(zip(graph.interactions.user_index.tolist(), graph.interactions.item_index.tolist(), strict=True))
    facts = set(zip(graph.item_entities.source_index.tolist(), graph.item_entities.target_index.tolist(), strict=True))
    found = set()
    for name in ("for_you", "discover"):
        items, _ = top_k(ranker, graph, users, 5, name, True)
        row, column = torch.nonzero(items >= 0, as_tuple=True)
        item = items[row, column]
        reasons, because_item, because_entity = ranker.explain(row, item, name)
        found |= set(reasons)
        for user, i, reason, cause, entity in zip(
            row.tolist(), item.tolist(), reasons, because_item.tolist(), because_entity.tolist(), strict=True
        ):
            assert (reason == "repeat") <= (cause == i and (user, i) in owned)
            assert (reason == "taste") <= (cause == -1 or (cause != i and (user, cause) in owned))
            assert (reason == "fact") <= ((i, entity) in facts and cause == -1)
            assert (reason in ("trend", "season")) <= (cause == entity == -1)
            assert name == "for_you" or reason != "repeat"
    assert {"repeat", "taste"} <= found | {"taste" if "fact" in found else ""}


def test_a_list_in_which_nobody_can_be_shown_anything_is_empty() -> None:
    """Two users who have both items: nothing is left to discover."""
    graph = tiny_graph([(user, item, age) for user in (0, 1) for item in (0, 1) for age in (2, 9, 16)])
    ranker = NetworkRanker(fit(graph, 7, SMALL, epochs=1), graph)
    assert not len(lists(ranker, graph, 2, "discover", True).item_index)
    assert len(lists(ranker, graph, 2, "for_you", True).item_index) == 4


def packed_with_ids(network: Network) -> dict[str, Any]:
    ids = {"item_ids": [f"i{item}" for item in range(14)], "entity_ids": ["e0", "e1"], "context_series": []}
    return pack(network) | ids


def test_a_warm_start_takes_no_weights_of_other_dated_series() -> None:
    packed = packed_with_ids(fit(two_tastes(), 7, SMALL, epochs=2))
    network = fit(two_tastes(seed=1), 7, SMALL, epochs=1)
    before = network.trend.detach().clone()
    carry_over(packed, network, packed["item_ids"], packed["entity_ids"], ("fair",))
    assert torch.equal(network.trend, before)
    assert torch.equal(network.mix, packed["tensors"]["mix"])


def test_a_warm_start_begins_with_the_embeddings_of_the_items_both_networks_know() -> None:
    stored = fit(two_tastes(), 7, SMALL, epochs=2)
    packed = packed_with_ids(stored)
    begun = []

    def start(network: Network) -> None:
        fresh = network.item.detach().clone()
        ids = ["i3", "new", *(f"i{item}" for item in range(4, 16))]
        carry_over(packed, network, ids, ["e1", "e0"], ())
        begun.append(
            (fresh, network.item.detach().clone(), network.entity.detach().clone(), network.trend.detach().clone())
        )

    fit(two_tastes(seed=1), 7, SMALL, epochs=1, start=start)
    fresh, items, entities, trend = begun[0]
    assert torch.equal(items[0], stored.item[3])
    assert torch.equal(items[2:10], stored.item[4:12])
    assert torch.equal(items[[1, 10, 11, 12, 13]], fresh[[1, 10, 11, 12, 13]])  # unknown, or without events then
    assert torch.equal(entities, stored.entity[[1, 0]])
    assert torch.equal(trend, stored.trend)


def test_nothing_is_carried_over_from_a_network_of_other_settings() -> None:
    stored = fit(two_tastes(), 7, SMALL.model_copy(update={"phase": False}), epochs=1)
    packed = packed_with_ids(stored)
    network = fit(two_tastes(), 7, SMALL, epochs=1)
    before = network.item.detach().clone()
    carry_over(packed, network, packed["item_ids"], packed["entity_ids"], ())
    assert torch.equal(network.item, before)

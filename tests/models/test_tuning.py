"""What tuning finds in shops whose best answer is known, and what it must not depend on."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest
import torch

from models.baselines import BASELINES
from models.evaluation import last_holdouts, metrics
from models.graph import Graph
from models.settings import ModelSettings
from models.tuning import tune
from tests.models.canary import DAYS, HORIZON_DAYS, poisoned, shop
from tests.models.tiny import tiny_graph, with_items_known

SETTINGS = ModelSettings()


def fashions(weeks: int) -> Graph:
    """Forty items, of which the n-th best sells 1/n as often as the best; after so many weeks others are best."""
    dice = torch.Generator().manual_seed(0)
    events = []
    for week in range(40):
        place = torch.multinomial(1 / torch.arange(1.0, 41.0), 120, replacement=True, generator=dice)
        item = (place + 7 * (week // weeks)) % 40
        events += [(number % 60, one, 7 * (40 - week)) for number, one in enumerate(item.tolist())]
    return with_items_known(tiny_graph(events, items=40))


def test_a_shop_of_short_fashions_gets_a_shorter_memory_than_a_steady_one() -> None:
    short, steady = (tune(fashions(weeks), 7, True, "decayed_popularity", SETTINGS, k=5) for weeks in (3, 40))
    for name in ("for_you", "discover"):
        assert short.options[name]["half_life"] <= 2
        assert steady.options[name]["half_life"] >= 8
        assert steady.ndcg[name] > steady.default_ndcg[name]


@pytest.mark.parametrize("name", BASELINES)
def test_every_option_lies_in_the_space_that_is_searched_and_every_name_is_known(name: str) -> None:
    baseline = BASELINES[name]
    for option in baseline.options:
        assert all(value in baseline.space[one] for one, value in (baseline.default | option).items())
    assert set(baseline.space) <= {*signature(baseline.learn).parameters, "window"}
    assert all(sorted(values) == list(values) for values in baseline.space.values())


def test_what_happened_after_a_date_does_not_change_what_is_tuned_as_of_it() -> None:
    graphs = [shop(), poisoned(shop(), DAYS)]
    blind = [tune(graph.back(DAYS), HORIZON_DAYS, True, "ease", SETTINGS, trials=6) for graph in graphs]
    seeing = [tune(graph, HORIZON_DAYS, True, "ease", SETTINGS, trials=6) for graph in graphs]
    assert blind[0] == blind[1]
    assert blind[0].trials == 6
    assert seeing[0] != seeing[1]


def test_tuning_twice_finds_the_same_and_draws_nothing_from_global_random_states() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore
    one, other = (tune(shop(), HORIZON_DAYS, True, "item_knn", SETTINGS, trials=8) for _ in range(2))
    assert one == other
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # type: ignore


def test_each_list_takes_the_trial_that_is_best_for_it() -> None:
    """What is told of a list is what its parameters give on the holdouts, and never below the default's."""
    graph = with_items_known(shop())
    found = tune(graph, HORIZON_DAYS, True, "item_knn", SETTINGS)
    holdouts, back_days = last_holdouts(graph, HORIZON_DAYS, "for_you", SETTINGS.seed)
    for name in ("for_you", "discover"):
        refresh = BASELINES["item_knn"].fit(graph.back(back_days), HORIZON_DAYS, SETTINGS, found.options[name])
        measured = torch.cat([metrics(refresh(now.graph), now, name, 20)["ndcg"] for now in holdouts])
        assert found.ndcg[name] == pytest.approx(float(measured.double().mean()))
        assert found.ndcg[name] >= found.default_ndcg[name]
    assert found.ndcg != found.default_ndcg
    assert found.options["for_you"] != found.options["discover"]


def test_without_time_for_a_second_trial_the_default_is_kept() -> None:
    found = tune(shop(), HORIZON_DAYS, True, "item_knn", SETTINGS, seconds=0.0)
    assert found.trials == 1
    assert found.options == dict.fromkeys(("for_you", "discover"), BASELINES["item_knn"].default)
    assert found.ndcg == found.default_ndcg


def test_a_history_too_short_for_holdouts_keeps_the_default() -> None:
    found = tune(tiny_graph([(0, 0, 3), (1, 1, 2)]), 7, False, "ease", SETTINGS)
    assert (found.trials, found.options) == (0, {"discover": BASELINES["ease"].default})

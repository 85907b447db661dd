"""Every name a backtest knows: fitted without a look ahead, with the part gone that its name says."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from models.ablations import ABLATIONS, times_shuffled
from models.baselines import BASELINES
from models.contenders import fitted
from models.settings import AblationName, ModelName, ModelSettings, RivalName
from models.timeline import Timeline
from tests.models.canary import DAYS, HORIZON_DAYS, poisoned, shop

SETTINGS = ModelSettings(dimension=8, epochs=1, snapshot_count=12, neighbour_count=3)
OWN = [name for name in get_args(ModelName) if name not in BASELINES]


def scores(name: str, graph, list_name: str = "for_you"):
    rankers, _ = fitted(name, graph, HORIZON_DAYS, True, SETTINGS, 5, {})
    return rankers[list_name].scores(torch.arange(graph.user_count), list_name)


def test_every_name_is_there() -> None:
    assert set(get_args(RivalName)) == set(BASELINES)
    assert set(get_args(AblationName)) == set(ABLATIONS)


@pytest.mark.parametrize("name", OWN)
def test_poison_after_the_date_changes_no_bit(name: str) -> None:
    graph = shop()
    clean, hurt = (scores(name, it.back(DAYS)) for it in (graph, poisoned(graph, DAYS)))
    assert torch.equal(clean, hurt)
    assert clean.isfinite().any()


def test_a_network_without_decay_does_not_see_when_its_events_were() -> None:
    """With one event type, no phase and a history of pairs bought once, times may be handed around."""
    settings = SETTINGS.model_copy(update={"phase": False, "decay": False, "neighbour_count": 0})
    graph = shop()
    users = torch.arange(graph.user_count)
    one, other = (Timeline(it, HORIZON_DAYS, settings).at(0, users) for it in (graph, times_shuffled(graph)))
    assert torch.equal(one.history.kernels, other.history.kernels)
    assert torch.equal(one.trend, other.trend)


def test_shuffled_times_keep_the_pairs_and_how_much_is_sold_on_each_day() -> None:
    graph = shop()
    other = times_shuffled(graph)
    one_pairs, other_pairs = (
        torch.sort(it.interactions.user_index * it.item_count + it.interactions.item_index).values
        for it in (graph, other)
    )
    assert torch.equal(one_pairs, other_pairs)
    assert torch.equal(graph.interactions.age_days.sort().values, other.interactions.age_days.sort().values)
    assert not torch.equal(graph.interactions.age_days, other.interactions.age_days)
    assert (other.item_age_days >= graph.item_age_days).all()


def test_without_repeat_own_events_lift_nothing_but_the_taste() -> None:
    rankers, _ = fitted("almanac without repeat", shop(), HORIZON_DAYS, True, SETTINGS, 5, {})
    network = rankers["for_you"].network  # pyright: ignore[reportAttributeAccessIssue]
    assert not network.settings.repeat
    snapshot = rankers["for_you"].timeline.at(0, torch.arange(3))  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        without = network(snapshot, ("for_you",))[0]
        network.settings = network.settings.model_copy(update={"repeat": True})
        lifted = network(snapshot, ("for_you",))[0]
    _, seen = snapshot.seen()
    assert (lifted.view(-1)[seen] > without.view(-1)[seen]).all()


def test_both_lists_of_one_baseline_and_option_are_fitted_once() -> None:
    rankers, choice = fitted("ease", shop(), HORIZON_DAYS, True, SETTINGS, 5, {})
    assert rankers["for_you"] is rankers["discover"]
    assert choice["for_you"] == BASELINES["ease"].options[0]
    own = {"ease": {"for_you": {"half_life": 4.0}, "discover": {"half_life": 1.0}}}
    rankers, choice = fitted("ease", shop(), HORIZON_DAYS, True, SETTINGS, 5, own)
    assert rankers["for_you"] is not rankers["discover"]
    assert choice == own["ease"]

"""Calibration: few numbers, learned again on horizons that the network was not trained on."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from models import training
from models.artifact import pack, unpack
from models.calibration import calibrate, held_out
from models.graph import Graph
from models.network import LISTS, Network
from models.network_ranker import NetworkRanker
from models.ranking import top_k
from models.settings import ModelSettings
from models.training import fit
from tests.models.tiny import tiny_graph, two_tastes, with_items_known

SETTINGS = ModelSettings(dimension=16, epochs=4)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return two_tastes(users=80, items_each=30)


@pytest.fixture(scope="module")
def network(graph: Graph) -> Network:
    return fit(graph, 7, SETTINGS, epochs=SETTINGS.epochs)


def pairs(chosen: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The same truth for both lists. chosen: int64 [U, k], −1 = none."""
    user, place = torch.nonzero(chosen >= 0, as_tuple=True)
    return dict.fromkeys(LISTS, (user, chosen[user, place]))


def listed(ranker: NetworkRanker, scores: Tensor, graph: Graph) -> Tensor:
    """The three items new to each user with the highest of these scores."""
    scores = scores.masked_fill(~torch.isfinite(ranker.scores(torch.arange(len(scores)), "discover")), -torch.inf)
    events = graph.interactions
    scores[events.user_index, events.item_index] = -torch.inf
    best = scores.topk(3, dim=1)
    return torch.where(best.values > -torch.inf, best.indices, -1)


def test_the_filter_counts_where_it_knows_what_follows_and_not_where_it_misleads(
    graph: Graph, network: Network
) -> None:
    ranker, users = NetworkRanker(network, graph), torch.arange(graph.user_count)
    filtered = ranker.filtered(users)
    weights = {}
    for sign in (1, -1):
        held = held_out(ranker, pairs(listed(ranker, sign * filtered, graph)), ("discover",))
        weights[sign] = float(calibrate(network, held).filter_weight()[1])
    assert weights[1] > 1
    assert weights[-1] == pytest.approx(0, abs=1e-3)


def test_taste_that_held_out_events_contradict_counts_less(graph: Graph, network: Network) -> None:
    ranker, users = NetworkRanker(network, graph), torch.arange(graph.user_count)
    scores = ranker.scores(users, "discover")
    wrong = listed(ranker, scores[(users + 1) % len(users)], graph)  # the others of the shop's two tastes
    held = held_out(ranker, pairs(wrong), ("discover",))
    trained, calibrated = (float(each.log_temperature[1]) for each in (network, calibrate(network, held)))
    assert calibrated < trained - 0.5


def test_a_large_catalogue_is_calibrated_on_drawn_items_much_as_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(1)
    events = {
        (u, 2 * int(300 * dice.random() ** 4) + u % 2, dice.randint(1, 100)) for u in range(80) for _ in range(40)
    }
    graph = with_items_known(tiny_graph(events, users=80, items=600))  # few are popular
    network = fit(graph, 7, SETTINGS, epochs=1)
    ranker, users = NetworkRanker(network, graph), torch.arange(graph.user_count)
    truth = pairs(listed(ranker, ranker.filtered(users), graph))
    whole = held_out(ranker, truth, LISTS)
    monkeypatch.setattr(training, "MOST_WHOLE", 1)
    monkeypatch.setattr(training, "NEGATIVES", 300)
    drawn = held_out(ranker, truth, LISTS)
    assert all(part.taste.shape[1] < 0.7 * graph.item_count for part in drawn)
    expected, found = (
        NetworkRanker(calibrate(network, held), graph).scores(users, "for_you").softmax(1) for held in (whole, drawn)
    )
    assert (found - expected).abs().sum(1).mean() / 2 < 0.1  # of .13 where what is drawn more often counts more


def test_only_the_shared_numbers_of_the_lists_learned_from_change(graph: Graph, network: Network) -> None:
    ranker = NetworkRanker(network, graph)
    before = deepcopy(network.state_dict())
    held = held_out(
        ranker, pairs(listed(ranker, ranker.filtered(torch.arange(graph.user_count)), graph)), ("discover",)
    )
    calibrated = calibrate(network, held)
    changed = {name for name, value in calibrated.state_dict().items() if not torch.equal(value, before[name])}
    assert (
        {"log_temperature", "trend", "filter_root"} <= changed <= {"log_temperature", "trend", "season", "filter_root"}
    )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    finished = network.finished({"discover": calibrated.calibration_values("discover")})
    users = torch.arange(graph.user_count)
    one, other = (NetworkRanker(each, graph).scores(users, "discover") for each in (calibrated, finished))
    assert torch.equal(one, other)
    assert torch.equal(finished.log_temperature[0], network.log_temperature[0])


def test_a_calibrated_network_survives_its_artifact_and_explains_what_the_filter_adds(
    graph: Graph, network: Network
) -> None:
    ranker, users = NetworkRanker(network, graph), torch.arange(graph.user_count)
    finished = deepcopy(network).requires_grad_(False)
    finished.filter_root.fill_(3.0)
    finished.log_temperature.fill_(-5.0)
    finished.trend.fill_(0.0)
    again = NetworkRanker(unpack(pack(finished)), graph)
    scores = again.scores(users, "discover")
    assert torch.allclose(
        scores - scores[:, :1], 9 * (ranker.filtered(users) - ranker.filtered(users)[:, :1]), atol=0.2
    )
    items, _ = top_k(again, graph, users[:30], 3, "discover", True)
    reasons, cause, _ = again.explain(users[:30], items[:, 0], "discover")
    tastes = [place for place, reason in enumerate(reasons) if reason == "taste"]
    assert len(tastes) > 20
    assert (cause[tastes] % 2 == users[tastes] % 2).all()  # of the user's own half of the shop

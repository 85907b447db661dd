"""What holds for every graph network: it learns, with the clock and without, and sees nothing of the future."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf
from typing import get_args

import pytest
import torch

from models.factorisation import softmax_loss
from models.graph import Graph
from models.networks import NETWORKS, network
from models.networks.losses import LOSSES
from models.networks.negatives import NEGATIVES
from models.networks.training import fit_network
from models.networks.view import Clock, View
from models.settings import ModelSettings, NetworkName
from tests.models.canary import (
    HORIZON_DAYS,
    assert_blind_to_the_future,
    assert_same_bits_twice,
    assert_tastes_are_told_apart,
    shop,
)
from tests.models.tiny import edges, tiny_graph

SMALL = {"dimension": 8, "layers": 2, "epochs": 1, "dates": 4}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return replace(shop(), user_users=edges([(user, (user + 2) % 30) for user in range(30)]))


def test_every_network_that_can_be_named_is_there() -> None:
    assert set(get_args(NetworkName)) == set(NETWORKS)
    assert all(network(name).__doc__ for name in NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_blind_to_the_future(name: str) -> None:
    assert_blind_to_the_future(partial(fit_network, season=0.5, name=name, **SMALL))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_the_same_bits_twice(name: str) -> None:
    assert_same_bits_twice(partial(fit_network, name=name, **SMALL))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_tells_tastes_apart(name: str) -> None:
    assert_tastes_are_told_apart(partial(fit_network, name=name, head=0.0, dimension=16, epochs=8, dates=8))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_clock_reaches_every_network(name: str) -> None:
    graph = shop()
    scores = [
        fit_network(graph, HORIZON_DAYS, ModelSettings(), half_life, season, name=name, head=0.0, **SMALL)(graph)
        for half_life, season in ((inf, 0.0), (4.0, 0.0), (inf, 1.0))
    ]
    plain, decayed, seasonal = (ranker.scores(torch.arange(30), "discover") for ranker in scores)
    assert not torch.equal(plain, decayed) and not torch.equal(plain, seasonal)


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name != "tgn"]
)  # which learns neither taste in so few steps
def test_users_who_changed_their_taste_are_given_the_new_one_by_decay(name: str) -> None:
    graph, users = shop(), torch.arange(30)
    events = graph.interactions
    item = torch.where(events.age_days > 60, (events.item_index + 6) % 12, events.item_index)
    order = torch.argsort(events.user_index * graph.item_count + item, stable=True)
    changed = replace(graph, interactions=replace(events, item_index=item).where(order))
    told = {"head": 0.0, "dimension": 16, "epochs": 12, "name": name}
    shares = []
    for half_life in (3.0, inf):
        ranker = fit_network(changed, HORIZON_DAYS, ModelSettings(), half_life, **told)(changed)
        now = (torch.arange(12) // 6)[None] == (users % 2)[:, None]
        shares.append(float((ranker.scores(users, "discover")[:, :12].softmax(1) * now).sum(1).mean()))
    assert shares[0] > 0.55
    assert (
        shares[0] > shares[1] + 0.05 or name == "sequence_gnn"
    )  # which reads the order of events without a clock, too


def test_without_a_clock_every_edge_weighs_one() -> None:
    view = View.of(shop(), Clock())
    for (source, name, target), relation in view.relations.items():
        assert (relation.weight >= 1).all() and (relation.weight == relation.weight.round()).all(), name
        assert (relation.edge_index[1].diff() >= 0).all()
        for row, kind in zip(relation.edge_index, (source, target), strict=True):
            place = view.kinds[kind]
            assert ((row >= place.start) & (row < place.stop)).all()
    assert (view.relations["item", "is", "entity"].weight == 1).all()


def test_an_edge_weighs_the_decayed_events_of_its_pair_and_more_at_its_time_of_the_year() -> None:
    graph = tiny_graph([(0, 0, 10), (0, 0, 30), (0, 1, 360)])
    weight = View.of(graph, Clock(10.0)).relations["user", "purchase", "item"].weight
    torch.testing.assert_close(weight, torch.tensor([0.5 + 0.125, 2**-36.0]))
    seasonal = View.of(graph, Clock(10.0, season=1.0)).relations["user", "purchase", "item"].weight
    assert seasonal[0] == weight[0] and seasonal[1] > 0.9


def test_the_heaviest_edges_of_a_node_are_its_latest() -> None:
    graph = tiny_graph([(0, item, 10 * (item + 1)) for item in range(5)] + [(1, 4, 3)])
    kept = View.of(graph, Clock(10.0)).heaviest(2).relations["item", "rev_purchase", "user"]
    assert sorted((kept.edge_index[0] - graph.user_count).tolist()) == [0, 1, 4]


def test_a_relation_that_was_not_there_yet_has_no_edges(graph: Graph) -> None:
    later = replace(graph, item_entities=replace(graph.item_entities, age_days=torch.full((12,), 5, dtype=torch.int32)))
    view = View.of(later, Clock())
    past = View.of(later.back(10), Clock(), like=view)
    assert list(past.relations) == list(view.relations)
    assert len(past.relations["item", "is", "entity"].weight) == 0 < len(view.relations["item", "is", "entity"].weight)


PAIRED = [(loss, "popularity") for loss in LOSSES] + [("softmax", kind) for kind in NEGATIVES if kind != "popularity"]


@pytest.mark.parametrize(("loss", "negatives"), PAIRED)
def test_every_loss_learns_with_every_kind_of_negative(loss: str, negatives: str, graph: Graph) -> None:
    told = {"loss": loss, "negatives": negatives, "negative_count": 4, "epochs": 6, "dimension": 8, "head": 0.0}
    fit = fit_network(graph, HORIZON_DAYS, ModelSettings(), 50.0, name="lightgcn_ahead", **told)
    best = fit(graph).scores(torch.arange(30), "discover")[:, :12].topk(3, dim=1).indices
    assert (best // 6 == torch.arange(30)[:, None] % 2).float().mean() > 0.8


def test_all_negatives_are_the_full_softmax() -> None:
    dice = torch.Generator().manual_seed(0)
    queries, items = torch.randn(3, 4, generator=dice), torch.randn(7, 4, generator=dice)
    row, item = torch.tensor([0, 1, 2]), torch.tensor([1, 5, 5])
    scores = queries @ items.T
    expected = (torch.logsumexp(scores, 1) - scores[row, item]).sum()
    torch.testing.assert_close(softmax_loss(queries, items, row, item, torch.ones(3), dice), expected)


def test_edges_of_a_random_split_are_learned_without_the_own_events_as_a_feature() -> None:
    """With a history of one day the pairs are the targets: the head must not read them."""
    graph = shop()
    day = replace(
        graph, interactions=replace(graph.interactions, age_days=torch.ones_like(graph.interactions.age_days))
    )
    fit = fit_network(day, 1, ModelSettings(), inf, name="lightgcn_ahead", dimension=16, epochs=30)
    best = fit(day).scores(torch.arange(30), "discover")[:, :12].topk(6, dim=1).indices
    assert (best // 6 == torch.arange(30)[:, None] % 2).float().mean() > 0.9
    assert float(fit(day).model.heard[1]) == 0

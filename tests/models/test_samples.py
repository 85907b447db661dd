"""Training on samples of a graph: what a step hears is of its past date, part of it, and enough to learn from."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from models.networks.samples import SAMPLES
from models.networks.training import Lesson, Recipe, fit_network, sampled
from models.networks.view import Clock, View
from tests.models.canary import (
    assert_blind_to_the_future,
    assert_same_bits_twice,
    assert_tastes_are_told_apart,
    shop,
)
from tests.models.tiny import tiny_graph

SIZES = {
    "neighbours": 3,
    "neighbours_by_weight": 3,
    "edge_dropout": 0.4,
    "saint_nodes": 40,
    "saint_edges": 30,
    "saint_walks": 15,
    "cluster": 3,
}
TAUGHT = {"name": "graphsage", "head": 0.0, "dimension": 16}


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(edges: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, edges.T.tolist()))


def test_every_sample_is_tried() -> None:
    assert set(SIZES) == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("days", [1, 100, 600])
def test_a_sample_is_a_part_of_the_edges_known_at_its_date(name: str, days: int) -> None:
    view = View.of(shop().back(days), Clock(50.0))
    heard, inside = SAMPLES[name](view, SIZES[name], dice())
    assert list(heard.relations) == list(view.relations)
    for relation, edges in heard.relations.items():
        assert pairs(edges.edge_index) <= pairs(view.relations[relation].edge_index)
        assert (edges.edge_index[1].diff() >= 0).all()
        assert inside is None or inside[edges.edge_index].all()
    counts = [sum(len(edges.weight) for edges in one.relations.values()) for one in (heard, view)]
    assert 0 < counts[0] < counts[1]


def test_no_node_hears_more_neighbours_than_told_and_all_where_there_are_fewer() -> None:
    view = View.of(shop(), Clock(50.0))
    for name in ("neighbours", "neighbours_by_weight"):
        heard, _ = SAMPLES[name](view, 3, dice())
        for relation, edges in heard.relations.items():
            found, known = (torch.bincount(it.edge_index[1]) for it in (edges, view.relations[relation]))
            assert torch.equal(found, known[: len(found)].clamp(max=3))


def test_neighbours_are_drawn_at_even_odds_or_by_weight() -> None:
    view = View.of(tiny_graph([(0, 0, 1), (0, 1, 11)]), Clock(10.0))
    relation = ("item", "rev_purchase", "user")
    for name, odds in (("neighbours", 0.5), ("neighbours_by_weight", 2 / 3)):
        heard = [int(SAMPLES[name](view, 1, dice(n))[0].relations[relation].edge_index[0]) for n in range(600)]
        assert abs(heard.count(view.kinds["item"].start) / 600 - odds) < 0.06


@pytest.mark.parametrize("name", SAMPLES)
def test_tastes_are_learned_from_samples(name: str) -> None:
    sample = {"sample": name, "sample_size": SIZES[name]}
    assert_tastes_are_told_apart(partial(fit_network, epochs=16, dates=8, **TAUGHT, **sample))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_training_are_blind_to_the_future_and_drawn_again_the_same(name: str) -> None:
    fit = partial(fit_network, epochs=2, dates=4, sample=name, sample_size=SIZES[name], **TAUGHT)
    assert_blind_to_the_future(fit)
    assert_same_bits_twice(fit)


def test_of_users_and_items_outside_a_part_nothing_is_learned() -> None:
    view, recipe = View.of(shop(), Clock(50.0)), Recipe(sample="saint_nodes", sample_size=12)
    row = torch.arange(30).repeat_interleave(12)
    whole = Lesson(view, torch.arange(30), row, torch.arange(12).repeat(30), torch.arange(360.0), torch.ones(13).bool())
    _, inside = SAMPLES["saint_nodes"](view, 12, dice())
    assert inside is not None
    user, item = inside[:30], inside[view.kinds["item"]]
    part = sampled(whole, recipe, dice())
    assert torch.equal(part.live, item)
    assert torch.equal(part.users, torch.nonzero(user).squeeze(1)) and 0 < len(part.users) < 30
    assert torch.equal(part.weight, whole.weight.view(30, 12)[user][:, item[:12]].flatten())
    assert torch.equal(part.users[part.row] * 12 + part.item, part.weight.long())

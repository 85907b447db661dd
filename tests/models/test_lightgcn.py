"""LightGCN against PyTorch Geometric's, and in a shop whose tastes are known."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from models.lightgcn import LAYERS, fit_lightgcn, hops, smooth
from models.settings import ModelSettings
from tests.models.canary import assert_blind_to_the_future, assert_same_bits_twice, assert_tastes_are_told_apart, shop
from tests.models.tiny import tiny_graph

fit_small = partial(fit_lightgcn, dimension=16)


@pytest.mark.parametrize("half_life_days", [float("inf"), 60.0])
def test_smoothing_is_that_of_torch_geometric(half_life_days: float) -> None:
    """With one event a pair and no decay all weights are 1; with decay PyG gets the same weights."""
    from torch_geometric.nn import LightGCN

    bought = shop().interactions
    pairs = set(zip(bought.user_index.tolist(), bought.item_index.tolist(), strict=True))
    graph = tiny_graph([(user, item, 1 + 7 * user + item) for user, item in pairs], users=31)
    events, users = graph.interactions, graph.user_count
    weight = torch.exp2(-events.age_days / half_life_days)
    assert (weight == 1).all() == (half_life_days == float("inf"))
    peer = LightGCN(users + graph.item_count, 8, LAYERS)
    edge = torch.stack([events.user_index, events.item_index + users])
    with torch.no_grad():
        expected = peer.get_embedding(torch.cat([edge, edge.flip(0)], 1), weight.repeat(2))
        own = peer.embedding.weight
        found = torch.cat(smooth(own[:users], own[users:], *hops(graph, half_life_days)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_user_who_comes_after_the_training_is_served_from_own_history() -> None:
    events = [(user, item + 3 * (user % 2), age) for user in range(12) for item in range(3) for age in (30, 40)]
    graph = tiny_graph([*events, (12, 4, 3)])
    scores = fit_small(graph.back(7), 7, ModelSettings(), 90.0)(graph).scores(torch.tensor([12]), "discover")[0]
    assert scores[3:].min() > scores[:3].max() + 0.01


def test_the_lower_the_learning_rate_the_nearer_the_vectors_stay_to_their_start() -> None:
    start, near, far = (
        fit_small(shop(), 7, ModelSettings(), 90.0, spectral=True, learning_rate=rate)(shop()).scores(
            torch.arange(30), "discover"
        )
        for rate in (0.0, 1e-3, 2e-2)
    )
    assert 0 < (near - start).norm() < (far - start).norm() / 4


def test_tastes_are_told_apart() -> None:
    assert_tastes_are_told_apart(fit_small)


def test_the_future_changes_nothing() -> None:
    assert_blind_to_the_future(fit_small)


def test_the_same_input_gives_the_same_bits() -> None:
    assert_same_bits_twice(fit_small)

"""What networks start from: own vectors, features, neighbours; and what is left out while they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.graph import Graph
from models.networks import network
from models.networks.inputs import SPREAD, Inputs
from models.networks.view import Clock, View
from tests.models.canary import shop
from tests.models.tiny import tiny_graph

D = 16


def made(graph: Graph, id_dropout: float = 0.0) -> tuple[View, Inputs]:
    view = View.of(graph, Clock(10.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return view, Inputs(view, D, user_ids=False, id_dropout=id_dropout)


@torch.no_grad()
def test_a_newcomer_starts_midway_between_its_features_and_the_mean_of_its_neighbours() -> None:
    """User 0 bought item 0 ten and item 1 twenty days ago, so hears them two to one; item 2 comes after the training."""
    features = torch.tensor([[1.0], [0.0], [3.0]])
    before = replace(tiny_graph([(0, 0, 10), (0, 1, 20)], users=2, items=3), item_features=features)
    after = replace(tiny_graph([(0, 0, 10), (0, 1, 20), (1, 1, 5), (1, 2, 5)]), item_features=features)
    view, inputs = made(before)
    inputs.item.copy_(torch.linspace(-1, 1, D)[None])
    own, told = inputs.own, inputs.item[0]
    found = inputs(view)
    torch.testing.assert_close(found[2:4], torch.stack([own[2] + told, own[3]]))
    torch.testing.assert_close(found[0], (2 * (own[2] + told) + own[3]) / 3 / 2)
    assert not found[1].any()  # nothing is known of user 1 yet
    found = inputs(View.of(after, Clock(10.0)))
    torch.testing.assert_close(found[4], 3 * told / 2)  # its buyer has neither vector nor features
    torch.testing.assert_close(found[1], (own[3] + 3 * told) / 2 / 2)


@torch.no_grad()
def test_own_vectors_start_small_and_by_chance() -> None:
    _, inputs = made(tiny_graph([(user, user, 1) for user in range(200)]))
    assert float(inputs.own.std()) == pytest.approx(SPREAD, rel=0.05)
    assert float(inputs.own.mean()) == pytest.approx(0, abs=SPREAD / 20)


@torch.no_grad()
def test_half_of_the_own_vectors_are_left_out_in_training_alone() -> None:
    view, inputs = made(tiny_graph([(user, user, 1) for user in range(400)]), id_dropout=0.5)
    items = view.kinds["item"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = (inputs(view)[items] == inputs.own[items]).all(1).float().mean()
    assert 0.4 < float(kept) < 0.6
    torch.testing.assert_close(inputs.eval()(view)[items], inputs.own[items])


@pytest.mark.parametrize("name", ["gcn", "gat", "graphsage", "ngcf", "rgcn"])
@torch.no_grad()
def test_dropout_is_for_training_alone(name: str) -> None:
    view = View.of(shop(), Clock())
    values = torch.randn(view.node_count, D, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = network(name)(view, D, 2, 0.5)
        one, other = (encoder(view, values) for _ in range(2))
    assert not torch.equal(one, other)
    encoder.eval()
    assert torch.equal(encoder(view, values), encoder(view, values))

"""With all weights 1 the networks are those of the papers, as PyTorch Geometric has them."""

from __future__ import annotations

import torch
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GCNConv, LightGCN

from models.networks.gcn import GCN
from models.networks.light import LearnedLightGCN
from models.networks.light import LightGCN as Light
from models.networks.ngcf import NGCF
from models.networks.view import Clock, View
from tests.models.canary import shop
from tests.models.tiny import tiny_graph

DIMENSION = 8


def plain_view() -> View:
    """One event a pair, so all weights are 1."""
    bought = shop().interactions
    pairs = set(zip(bought.user_index.tolist(), bought.item_index.tolist(), strict=True))
    return View.of(tiny_graph([(user, item, 1 + 7 * user + item) for user, item in pairs], users=31), Clock())


def values_of(view: View) -> torch.Tensor:
    return torch.randn(view.node_count, DIMENSION, generator=torch.Generator().manual_seed(3))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_light_gcn_is_that_of_torch_geometric() -> None:
    view = plain_view()
    peer = LightGCN(view.node_count, DIMENSION, num_layers=3)
    own = Light(view, DIMENSION, 3, 0.0)
    assert_close(own(view, peer.embedding.weight), peer.get_embedding(view.joined[0].edge_index))


def test_learned_alpha_starts_equal_and_moves() -> None:
    view = plain_view()
    values, own, fixed = values_of(view), LearnedLightGCN(view, DIMENSION, 3, 0.0), Light(view, DIMENSION, 3, 0.0)
    assert_close(own(view, values), fixed(view, values))
    own(view, values).square().sum().backward()
    assert own.alpha.grad is not None and own.alpha.grad.abs().max() > 0
    assert not fixed.alpha.requires_grad


@torch.no_grad()
def test_gcn_is_that_of_torch_geometric() -> None:
    view = plain_view()
    values, own = values_of(view), GCN(view, DIMENSION, 2, 0.0)
    expected = values
    for place, layer in enumerate(own.layers):
        peer = GCNConv(DIMENSION, DIMENSION)
        peer.load_state_dict(layer.state_dict())
        expected = peer(expected, view.joined[0].edge_index)
        expected = expected.relu() if place == 0 else expected
    assert_close(own(view, values), expected)


@torch.no_grad()
def test_ngcf_is_its_formula_edge_by_edge() -> None:
    view = plain_view()
    values, own = values_of(view), NGCF(view, DIMENSION, 1, 0.0)
    (source, target), count = view.joined[0].edge_index, torch.bincount(view.joined[0].edge_index[1])
    count = torch.nn.functional.pad(count, (0, view.node_count - len(count)))
    w1, w2 = own.own[0], own.shared[0]
    message = torch.zeros_like(values)
    for j, i in zip(source.tolist(), target.tolist(), strict=True):
        norm = (count[i] * count[j]).float().rsqrt()
        message[i] += norm * (values[j] @ w1.weight.T + (values[j] * values[i]) @ w2.weight.T)
    expected = leaky_relu(values @ w1.weight.T + w1.bias + message + w2.bias)
    assert_close(own(view, values)[:, DIMENSION:], expected)
    assert_close(own(view, values)[:, :DIMENSION], values)

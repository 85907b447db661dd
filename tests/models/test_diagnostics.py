"""Layer by layer: how alike vectors become, what a layer holds and costs; gradients; nodes in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from models.graph import Graph
from models.networks import NETWORKS, network
from models.networks.along import AlongGCN
from models.networks.content import fit_content
from models.networks.diagnostics import cost, dirichlet_energy, growth, layer_outputs, mean_cosine, smoothness
from models.networks.gat import attend, dots
from models.networks.view import Clock, View
from models.propagation import Adjacency, propagate
from models.settings import ModelSettings
from tests.models.canary import shop
from tests.models.permuted import moved, permuted
from tests.models.tiny import edges, tiny_graph

D = 8


@pytest.fixture(scope="module")
def view() -> View:
    return View.of(shop(), Clock(100.0))


def values_of(view: View) -> Tensor:
    return torch.randn(view.node_count, D, generator=torch.Generator().manual_seed(0))


def encoder_of(name: str, view: View, layers: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network(name)(view, D, layers, 0.0).eval()


@pytest.mark.parametrize("name", ["gcn", "lightgcn_ahead", "ngcf", "gat", "graphsage"])
def test_more_layers_make_vectors_more_alike(name: str, view: View) -> None:
    found = smoothness(encoder_of(name, view, 6), view, values_of(view))
    assert [one.layer for one in found] == list(range(7))
    assert abs(found[0].mean_cosine) < 0.1 and found[6].mean_cosine > found[1].mean_cosine + 0.1
    if name != "lightgcn_ahead":  # without loops the two sides of a bipartite graph take turns: their energy stays
        assert found[6].dirichlet_energy < found[0].dirichlet_energy - 0.1


def test_the_vectors_after_a_layer_are_those_of_the_formula(view: View) -> None:
    values, hop = values_of(view), view.hop()
    plain = layer_outputs(encoder_of("lightgcn_ahead", view, 3), view, values)
    for found, expected in zip(plain, (hop(values), hop(hop(values)), hop(hop(hop(values)))), strict=True):
        torch.testing.assert_close(found, expected)
    beside = encoder_of("ngcf", view, 2)
    blocks = beside(view, values).split(D, 1)
    assert all(torch.equal(*pair) for pair in zip(layer_outputs(beside, view, values), blocks[1:], strict=True))
    assert not any(module._forward_hooks for module in beside.modules())


def test_a_network_that_shows_no_layer_is_refused(view: View) -> None:
    class Closed(nn.Module):
        def forward(self, view: View, values: Tensor) -> Tensor:
            return values + 1

    with pytest.raises(ValueError, match="Closed shows no layer"):
        layer_outputs(Closed(), view, values_of(view))


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])
    assert mean_cosine(rows) == pytest.approx((1 - 1 - 1) / 6)  # the row of zeros has no direction
    assert mean_cosine(rows[:2]) == pytest.approx(1)
    assert mean_cosine(rows[:1]) != mean_cosine(rows[:1])


def test_the_energy_is_the_quadratic_form_of_the_normalised_laplacian(view: View) -> None:
    joined, _ = view.joined
    weights = torch.zeros(view.node_count, view.node_count, dtype=torch.float64)
    weights.index_put_((joined.edge_index[1], joined.edge_index[0]), joined.weight.double(), accumulate=True)
    torch.testing.assert_close(weights, weights.T)
    total = weights.sum(1)
    touched, values = total > 0, values_of(view).double()
    root = total.clamp(min=1e-30).rsqrt()
    laplacian = touched.double().diag() - root[:, None] * weights * root
    expected = (values * (laplacian @ values)).sum() / values[touched].square().sum()
    assert dirichlet_energy(values, joined) == pytest.approx(float(expected), rel=1e-5)
    assert dirichlet_energy(total.sqrt()[:, None].expand(-1, 3), joined) == pytest.approx(0, abs=1e-6)


def test_the_peak_is_what_is_held_at_one_time() -> None:
    assert cost(lambda: (torch.zeros(1000, 100) + 1) * 2, runs=1).peak_bytes == pytest.approx(8e5, rel=0.01)
    kept = torch.zeros(1000, 100)
    assert cost(lambda: kept.view(-1)[:5], runs=1).peak_bytes < 1000


def test_a_sum_along_a_hop_holds_the_nodes_and_pygs_gather_the_edges() -> None:
    dense = tiny_graph([(user, item, 1) for user in range(60) for item in range(60)])
    view = View.of(dense, Clock())
    hop, joined = view.hop(), view.joined[0]
    wide = 4 * D
    values = torch.randn(view.node_count, wide, requires_grad=True)
    along, gather = AlongGCN(wide, wide, normalize=False), GCNConv(wide, wide, normalize=False)
    summed = cost(lambda: along(values, hop), runs=1).peak_bytes
    gathered = cost(lambda: gather(values, joined.edge_index, hop.weight), runs=1).peak_bytes
    of_edges = len(joined.weight) * wide * 4
    assert gathered > of_edges > 4 * summed


def test_the_growth_of_a_power_law_is_its_power() -> None:
    assert growth([1.0, 2.0, 8.0], [3.0, 12.0, 192.0]) == pytest.approx(2)
    assert growth([1.0, 2.0, 8.0], [3.0, 3.0, 3.0]) == pytest.approx(0)


PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12)


def adjacency_of(pairs: list[tuple[int, int]]) -> Adjacency:
    row, column = torch.tensor(sorted(pairs)).T.contiguous()
    return Adjacency.build(row, column, 4, 5)


def drawn(*shape: int) -> Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    ).requires_grad_()


@settings(deadline=None, max_examples=10)
@given(PAIRS)
def test_the_gradients_of_own_functions_are_those_of_finite_differences(pairs: list[tuple[int, int]]) -> None:
    """Edges repeat, and rows and columns without any are there."""
    adjacency, count = adjacency_of(pairs), len(pairs)
    weight = drawn(count).detach()
    assert torch.autograd.gradcheck(lambda values: propagate(adjacency, weight, values), drawn(5, 3))
    assert torch.autograd.gradcheck(lambda *given: attend(adjacency, *given), (drawn(count, 2), drawn(5, 2, 3)))
    assert torch.autograd.gradcheck(lambda *given: dots(adjacency, *given), (drawn(4, 2, 3), drawn(5, 2, 3)))


@given(PAIRS)
def test_own_functions_are_the_dense_ones(pairs: list[tuple[int, int]]) -> None:
    adjacency, count = adjacency_of(pairs), len(pairs)
    row, column = torch.tensor(sorted(pairs)).T
    shares, values, left = drawn(count, 2), drawn(5, 2, 3), drawn(4, 2, 3)
    expected = torch.zeros(4, 2, 3, dtype=torch.float64).index_add(0, row, shares[..., None] * values[column])
    torch.testing.assert_close(attend(adjacency, shares, values), expected)
    torch.testing.assert_close(dots(adjacency, left, values), (left[row] * values[column]).sum(-1))


@pytest.fixture(scope="module")
def linked() -> Graph:
    friends = edges([(user, (user + 2) % 30) for user in range(30)])
    facts = replace(edges([(3, 0), (4, 1)]), weight=torch.tensor([2.0, 3.0]))
    return replace(shop(), user_users=friends, user_entities=facts, item_features=torch.arange(26.0).view(13, 2).sin())


@pytest.fixture(scope="module")
def untied(linked: Graph) -> Graph:
    """No two events of one day and no two edges of one weight: whoever reads edges in an order has but one to read."""
    count = len(linked.interactions.age_days)
    events = replace(
        linked.interactions, age_days=torch.randperm(count, generator=torch.Generator().manual_seed(6)).int() + 1
    )
    order = torch.argsort((events.user_index * linked.item_count + events.item_index) * (count + 1) + events.age_days)
    facts = {
        name: replace(found, weight=torch.linspace(1, 2, len(found.weight)))
        for name in ("item_entities", "user_users")
        if (found := getattr(linked, name))
    }
    return replace(linked, interactions=events.where(order), **facts)


def test_a_permuted_graph_is_the_same_graph_with_other_numbers(linked: Graph) -> None:
    made, to = permuted(linked, torch.Generator().manual_seed(5))
    before, after = linked.interactions, made.interactions
    keys = after.user_index * linked.item_count + after.item_index
    assert (keys.diff() >= 0).all() and (after.age_days.diff()[keys.diff() == 0] >= 0).all()
    assert not torch.equal(to.user, torch.arange(linked.user_count))

    def rows(user: Tensor, item: Tensor, age: Tensor) -> set[tuple[int, ...]]:
        return set(zip(user.tolist(), item.tolist(), age.tolist(), strict=True))

    expected = rows(to.user[before.user_index], to.item[before.item_index], before.age_days)
    assert rows(after.user_index, after.item_index, after.age_days) == expected
    assert torch.equal(made.item_age_days[to.item], linked.item_age_days)
    assert torch.equal(made.item_features[to.item], linked.item_features)
    facts = dict(zip(made.user_entities.source_index.tolist(), made.user_entities.weight.tolist(), strict=True))
    assert facts == {int(to.user[3]): 2.0, int(to.user[4]): 3.0}


def states(encode: Callable[[View, Tensor], Tensor], graph: Graph, order: Callable[[Tensor], Tensor]) -> Tensor:
    view = View.of(graph, Clock(100.0))
    return encode(view, order(values_of(view)))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pinsage"])  # its walks are drawn by chance
def test_what_an_encoder_says_of_nodes_moves_with_them(name: str, untied: Graph) -> None:
    linked = untied
    made, to = permuted(linked, torch.Generator().manual_seed(5))
    encoder = encoder_of(name, View.of(linked, Clock(100.0)), 2)
    with torch.no_grad():
        for place, parameter in enumerate(encoder.parameters()):  # those that start at 0 too
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(place))
    one = states(encoder, linked, lambda values: values)
    two = states(encoder, made, lambda values: moved(values, to.node))
    torch.testing.assert_close(two, moved(one, to.node), rtol=1e-3, atol=1e-4)

    def numbered(view: View, values: Tensor) -> Tensor:
        return encoder(view, values) + torch.arange(len(values))[:, None]

    told = states(numbered, made, lambda values: moved(values, to.node))
    assert not torch.allclose(told, moved(states(numbered, linked, lambda values: values), to.node))


def test_content_scores_move_with_their_users_and_items(linked: Graph) -> None:
    made, to = permuted(linked, torch.Generator().manual_seed(5))
    users = torch.arange(linked.user_count)
    one, other = (
        fit_content(graph, 7, ModelSettings(), inf)(graph).scores(users, "discover") for graph in (linked, made)
    )
    torch.testing.assert_close(other[to.user][:, to.item], one)

"""GraphSAGE, Edge-GraphSAGE and PinSage: the textbook's with weights of 1, and what the clock makes of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch_geometric.nn import SAGEConv

from models.graph import Graph, Interactions
from models.hops import Hop
from models.networks.edge_sage import EdgeSAGE, messages
from models.networks.edge_sage import Told as ToldEdges
from models.networks.lstm import Sequences, last_states
from models.networks.pinsage import PinSage, walk
from models.networks.sage import MaxSAGE, MeanSAGE, SequenceSAGE, Told, by_date, relative
from models.networks.training import fit_network
from models.networks.view import Clock, View
from models.propagation import Adjacency
from models.settings import ModelSettings
from tests.models.canary import HORIZON_DAYS, assert_tastes_are_told_apart, shop
from tests.models.tiny import edges, tiny_graph

DIMENSION = 6
NAMES = ("graphsage", "graphsage_max", "graphsage_lstm", "edge_sage", "pinsage")
INDUCTIVE = (*NAMES, "ggnn", "mpnn", "tgn", "content_gnn", "sequence_gnn")


def ring(users: int = 6, each: int = 3) -> View:
    """Every user took `each` items and every item was taken by as many users, once; no clock, so all weights are 1."""
    taken = [(user, (user + step) % users, 1 + user + 7 * step) for user in range(users) for step in range(each)]
    return View.of(tiny_graph(taken), Clock())


def values_of(view: View, dimension: int = DIMENSION) -> Tensor:
    return torch.randn(view.node_count, dimension, generator=torch.Generator().manual_seed(3))


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_two_layers_of_the_mean_by_hand() -> None:
    """Fetch, mean, W_neigh, W_self, sum, ReLU, and again: user 0 took items of 1 and 3, user 1 that of 3."""
    view = View.of(tiny_graph([(0, 0, 1), (0, 1, 1), (1, 1, 1)]), Clock())
    own: Any = MeanSAGE(view, 1, 2, 0.0)
    for layer, neighbour, self_ in zip(own.layers, (1.0, 3.0), (-2.0, 1.0), strict=True):
        nn.init.constant_(layer.lin_l.weight, neighbour)
        nn.init.zeros_(layer.lin_l.bias)
        nn.init.constant_(layer.lin_r.weight, self_)
    start = torch.tensor([[0.0], [2.0], [1.0], [3.0]])  # users 0 and 1, items 0 and 1
    first = torch.tensor([[2.0], [0.0], [0.0], [0.0]])  # (1 + 3) / 2; 3 − 4; 0 − 2; (0 + 2) / 2 − 6
    second = torch.tensor([[2.0], [0.0], [6.0], [3.0]])  # 2; 0; 3 · 2; 3 · (2 + 0) / 2
    assert_close(own(view, start), torch.cat([start, first, second], 1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "aggr", "project"), [(MeanSAGE, "mean", False), (MaxSAGE, "max", True), (SequenceSAGE, "lstm", False)]
)
def test_with_weights_of_one_it_is_that_of_torch_geometric(network: type, aggr: str, project: bool) -> None:
    view = ring()
    own: Any = network(view, DIMENSION, 2, 0.0)
    values = values_of(view)
    expected = [values]
    for place, layer in enumerate(own.layers):
        peer = SAGEConv(DIMENSION, DIMENSION, aggr=aggr, project=project)
        peer.load_state_dict(layer.state_dict())
        out = peer(expected[-1], view.joined[0].edge_index)
        expected.append(out.relu() if place == 0 else out)
    assert_close(own(view, values), torch.cat(expected, 1))


@torch.no_grad()
def test_the_mean_and_the_maximum_hear_old_events_less() -> None:
    """User 0 took item 0 today and item 1 two half-lives ago: weights 1 and 1/4."""
    view = View.of(tiny_graph([(0, 0, 10), (0, 1, 30)]), Clock(10.0))
    values = torch.tensor([[0.0], [2.0], [4.0]])
    mean: Any = MeanSAGE(view, 1, 1, 0.0)
    most: Any = MaxSAGE(view, 1, 1, 0.0)
    for layer in (mean.layers[0], most.layers[0]):
        for name, value in layer.named_parameters():
            nn.init.constant_(value, float(name in ("lin.weight", "lin_l.weight")))
    assert_close(mean(view, values)[0, 1], torch.tensor((0.5 * 2 + 0.125 * 4) / 0.625))
    assert_close(most(view, values)[0, 1], torch.tensor(2.0))  # against 4 / 4
    assert_close(relative(view.joined[0], 3), torch.tensor([1.0, 0.25, 1.0, 1.0]))
    still = View.of(view.graph, Clock())
    assert_close(mean(still, values)[0, 1], torch.tensor(3.0))
    assert_close(most(still, values)[0, 1], torch.tensor(4.0))


@torch.no_grad()
def test_a_sequence_is_read_from_facts_to_the_oldest_to_the_newest_event() -> None:
    graph = tiny_graph([(0, 0, 20), (0, 1, 5), (0, 2, 40), (1, 2, 3)], item_entities=edges([(2, 0)]))
    ordered = by_date(View.of(graph, Clock(10.0)).joined[0])
    heard = {node: ordered.edge_index[0][ordered.edge_index[1] == node].tolist() for node in (0, 4)}
    assert heard == {0: [4, 2, 3], 4: [5, 0, 1]}  # items 2, 0, 1; the fact, user 0, user 1


@torch.no_grad()
def test_the_order_of_events_is_heard_with_a_clock_only() -> None:
    taken, turned = (tiny_graph([(0, 0, age), (0, 1, 50 - age)]) for age in (20, 30))
    for clock, same in ((Clock(1e9), False), (Clock(), True)):
        views = [View.of(graph, clock) for graph in (taken, turned)]
        own, values = SequenceSAGE(views[0], DIMENSION, 1, 0.0), values_of(views[0])
        one, other = (own(view, values)[0] for view in views)
        assert torch.allclose(one, other, atol=1e-6) == same


@torch.no_grad()
def test_edge_sage_is_its_formula_edge_by_edge() -> None:
    events = [(0, 0, 10, 0), (0, 1, 30, 1), (1, 1, 4, 0), (1, 1, 8, 0)]
    view = View.of(tiny_graph(events, event_types=("view", "purchase")), Clock(10.0))
    own: Any = EdgeSAGE(view, DIMENSION, 1, 0.0)
    values = values_of(view)
    layer = own.layers[0]
    nn.init.normal_(layer.edge.weight)
    nn.init.normal_(layer.kind.weight)
    heard, total = torch.zeros_like(values), torch.zeros(len(values))
    for kind, relation in enumerate(view.relations.values()):
        for (j, i), weight, features in zip(relation.edge_index.T, relation.weight, relation.features, strict=True):
            said = layer.node(values[j]) + layer.edge.weight @ features + layer.kind.weight[kind]
            heard[i] += weight * said.relu()
            total[i] += weight
    expected = layer.own(values) + (heard / total[:, None]) @ layer.heard.weight.T
    assert_close(own(view, values), torch.cat([values, expected], 1))


def test_messages_along_edges_and_their_gradients_are_those_of_the_formula() -> None:
    events = [(0, 0, 10, 0), (0, 1, 30, 1), (1, 1, 4, 0), (1, 1, 8, 0)]
    view = View.of(tiny_graph(events, event_types=("view", "purchase")), Clock(10.0))
    (heard, kind), dice = view.joined, torch.Generator().manual_seed(5)
    nodes, types, by_feature, pull = (
        torch.randn(size, DIMENSION, generator=dice, requires_grad=True) for size in (4, 4, 5, 4)
    )
    said = (nodes[heard.edge_index[0]] + types[kind] + heard.features @ by_feature).relu()
    weight = view.hop(mean=True).weight[:, None]
    expected = torch.zeros(4, DIMENSION).index_add(0, heard.edge_index[1], said * weight)
    found = messages(torch.cat([nodes, types]), by_feature.T, ToldEdges.of(view))
    assert_close(found, expected)
    both = (torch.autograd.grad(sums, (nodes, types, by_feature), pull) for sums in (found, expected))
    for gradient, same in zip(*both, strict=True):
        assert gradient.any()
        assert_close(gradient, same)


def test_sequences_of_any_lengths_are_read_as_by_torchs_lstm_with_the_same_gradients() -> None:
    """1,100 sequences of one to five elements, in three parts that are read side by side."""
    torch.manual_seed(2)
    lstm: Any = nn.LSTM(DIMENSION, DIMENSION)
    count = torch.arange(1100) * 7 % 5 + 1
    owner = torch.repeat_interleave(3 * torch.arange(1100), count)
    sequences = Sequences.of(owner)
    values = torch.randn(len(owner), DIMENSION, requires_grad=True)
    weights = [values, *lstm.parameters()]
    elements = Adjacency.build(torch.arange(len(owner)), sequences.order, len(owner), len(owner))
    told, hop = values @ lstm.weight_ih_l0.T, Hop(elements, torch.ones(len(owner)))
    found = last_states(told, hop, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0, sequences)
    packed = pack_sequence(list(values.split(count.tolist())), enforce_sorted=False)
    expected = lstm(packed)[1][0][0][sequences.owner // 3]
    assert len(sequences.sizes) == 3 and torch.equal(sequences.owner.sort().values, 3 * torch.arange(1100))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    pull = torch.randn_like(found)
    for gradient, same in zip(*(torch.autograd.grad(it, weights, pull) for it in (found, expected)), strict=True):
        torch.testing.assert_close(gradient, same, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_entities_hear_only_what_reaches_users_and_items_from_the_lstm() -> None:
    """Item 1 hears entity 0 in the last layer, so that one hears in the first; entity 1 knows entity 0 only."""
    graph = tiny_graph([(0, 0, 20), (0, 1, 5)], item_entities=edges([(1, 0)]))
    view = View.of(replace(graph, entity_count=2, entity_entities=edges([(1, 0)])), Clock(10.0))
    own: Any = SequenceSAGE(view, DIMENSION, 2, 0.0)
    values = values_of(view)
    told, states = Told.of(by_date(view.joined[0]), len(values)), own(view, values).split(DIMENSION, 1)
    first, first_alone = (layer.relu() for layer in (own.layers[0](values, told), _alone(own.layers[0], values)))
    assert_close(states[1], torch.cat([first[:4], first_alone[4:]]))
    assert_close(states[2][:3], own.layers[1](first, told)[:3])
    assert_close(states[2][3:], _alone(own.layers[1], states[1])[3:])


def _alone(layer: Any, values: Tensor) -> Tensor:
    return layer.lin_r(values) + layer.lin_l.bias


def test_edge_sage_learns_from_what_kind_of_event_it_was() -> None:
    """Its weights for types and features start at 0, and have gradients."""
    view = View.of(tiny_graph([(0, 0, 10, 0), (0, 1, 30, 1)], event_types=("view", "purchase")), Clock(10.0))
    own: Any = EdgeSAGE(view, DIMENSION, 1, 0.0)
    own(view, values_of(view)).square().sum().backward()
    for weight in (own.layers[0].edge.weight, own.layers[0].kind.weight):
        assert not weight.any() and weight.grad is not None and weight.grad.any()


@torch.no_grad()
def test_pin_sage_hears_items_by_their_share_of_the_visits() -> None:
    view = ring()
    own: Any = PinSage(view, DIMENSION, 1, 0.0)
    values, hop = values_of(view), walk(view)
    shares = torch.zeros(view.node_count, view.node_count)
    row = torch.repeat_interleave(hop.adjacency.row_offsets.diff())
    shares[row, hop.adjacency.column.long()] = hop.weight
    assert_close(shares.sum(1), torch.ones(view.node_count))
    assert not shares[:, view.kinds["user"]].any() and not shares.diagonal().any()
    assert all(shares[0, view.kinds["item"]].topk(3).indices.sort().values == torch.tensor([0, 1, 2]))  # its own
    heard = shares @ own.offer[0](values).relu()
    expected = own.last(own.join[0](torch.cat([values, heard], 1)).relu())
    assert_close(own.eval()(view, values), torch.cat([values, expected], 1))


@torch.no_grad()
def test_walks_follow_the_clock() -> None:
    graph = tiny_graph([(1, 0, 1), (1, 1, 31)])  # user 0 has nothing; items 0 and 1 are nodes 2 and 3
    heard = [walk(View.of(graph, Clock(half_life)))(torch.eye(4)) for half_life in (10.0, 1e9)]
    assert heard[0][1, 2] > 0.8 and abs(heard[1][1, 2] - 0.5) < 0.15
    assert not heard[0][0].any() and heard[0][2, 3] == 1


def test_pin_sage_walks_once_for_a_date_in_training_and_anew_for_what_is_asked_later() -> None:
    view = ring()
    own: Any = PinSage(view, DIMENSION, 1, 0.0)
    values = values_of(view)
    own(view, values)
    first = own.walked[view.graph.as_of]
    own(View.of(view.graph, view.clock), values)
    assert own.walked[view.graph.as_of] is first
    smaller = View.of(tiny_graph([(0, 0, 1)], users=6, items=6), view.clock, like=view)
    expected = walk(smaller)(values)
    assert torch.equal(own.eval().neighbours(smaller)(values), expected) and not own.walked


@pytest.mark.parametrize("name", NAMES)
def test_tastes_are_told_apart(name: str) -> None:
    assert_tastes_are_told_apart(partial(fit_network, name=name, dimension=16))


def with_newcomers(graph: Graph) -> Graph:
    """User 30 takes item 1 yesterday, item 12 of the even half is there since yesterday and nobody has taken it."""
    old = graph.interactions.where(graph.interactions.item_index < 12)
    one = Interactions(*(torch.tensor([value]) for value in (30, 1, 0, 1, 1.0, 0.5, 0.5, 24)))
    joined = {name: torch.cat([column, vars(one)[name].to(column)]) for name, column in vars(old).items()}
    known = torch.where(torch.arange(13) < 12, graph.item_age_days, 1)
    facts = edges([*((item, item // 6) for item in range(12)), (12, 0)])
    facts = replace(facts, age_days=torch.where(torch.arange(13) < 12, facts.age_days, 1))
    return replace(graph, interactions=Interactions(**joined), item_age_days=known.int(), item_entities=facts)


@pytest.mark.parametrize("name", INDUCTIVE)
def test_who_and_what_is_new_after_training_is_told_by_edges(name: str) -> None:
    graph = with_newcomers(shop())
    before = graph.back(2)
    assert not (before.interactions.user_index == 30).any() and not before.live_items[12]
    learned = fit_network(before, HORIZON_DAYS, ModelSettings(), 50.0, name=name, dimension=16, head=0.0)
    scores = learned(graph).scores(torch.arange(31), "discover")
    half = scores[30, :12].view(2, 6).mean(1)
    assert half[0] > half[1]
    newcomer = scores[:30, 12] - scores[:30, :12].mean(1)
    assert newcomer[0::2].mean() > newcomer[1::2].mean() + 0.1

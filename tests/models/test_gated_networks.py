"""Networks with a state, with friends, with content and with sequences: each against its formula or its part of PyG."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GatedGraphConv, NNConv, TransformerConv
from torch_geometric.nn.models.tgn import IdentityMessage, MeanAggregator, TGNMemory

from models.graph import Graph
from models.networks.gated import GatedGraph, MessagePassingNetwork
from models.networks.hybrid import WithContent, WithSequence, last_items
from models.networks.light import LightGCN
from models.networks.social import SocialGCN, unsocial
from models.networks.tgn import HEADS, TGN, TIMES, Events
from models.networks.training import fit_network
from models.networks.view import Clock, View
from models.settings import ModelSettings
from tests.models.canary import HORIZON_DAYS, assert_tastes_are_told_apart, shop
from tests.models.test_sage_networks import assert_close, values_of
from tests.models.tiny import edges, tiny_graph

D = 6
VIEWED, BOUGHT = 0, 1


def visited(ages: tuple[int, ...] = (40, 9, 30, 2, 12, 3)) -> Graph:
    """Two users and three items; user 0 on four days, user 1 on two."""
    pairs = ((0, 0, VIEWED), (0, 1, BOUGHT), (1, 1, VIEWED), (0, 2, BOUGHT), (0, 0, BOUGHT), (1, 2, VIEWED))
    events = [(user, item, age, kind) for (user, item, kind), age in zip(pairs, ages, strict=True)]
    return tiny_graph(events, event_types=("view", "purchase"))


@torch.no_grad()
def test_ggnn_is_that_of_torch_geometric() -> None:
    view = View.of(shop(), Clock(100.0))
    own: Any = GatedGraph(view, D, 3, 0.0)
    values = values_of(view)
    peer = GatedGraphConv(D, 3)
    peer.load_state_dict(own.layer.state_dict())
    expected = peer(values, view.joined[0].edge_index, view.hop().weight)
    assert_close(own(view, values), torch.cat([values, expected], 1))


@torch.no_grad()
def test_the_message_of_mpnn_is_a_matrix_for_each_edge() -> None:
    view = View.of(visited(), Clock(10.0))
    own: Any = MessagePassingNetwork(view, D, 1, 0.0)
    values = values_of(view)
    nn.init.normal_(own.transform)
    edges_, kind = view.joined

    def matrix(edge: Tensor) -> Tensor:
        mix = (own.feature(edges_.features) + own.kind(kind)).softmax(1)
        return edge * torch.einsum("ec,cdf->edf", mix, own.transform).flatten(1)

    peer = NNConv(D, D, nn=matrix, root_weight=False, bias=False)
    message = peer(values, edges_.edge_index, view.hop().weight[:, None])
    assert_close(own(view, values)[:, D:], own.update(message, values))


@torch.no_grad()
def test_with_weights_of_one_the_memory_is_that_of_torch_geometric() -> None:
    """Rounds of 40 to 22, 21 to 8 and 7 to 1 days of age at a horizon of 7."""
    view = View.of(visited(), Clock(horizon_days=7))
    own: Any = TGN(view, D, 1, 0.0)
    values, oldest = values_of(view), 40
    nn.init.normal_(own.update.weight_ih)
    peer: Any = TGNMemory(view.node_count, 2, D, TIMES, IdentityMessage(2, D, TIMES), MeanAggregator())
    peer.eval()
    peer.gru.load_state_dict(own.update.state_dict())
    peer.time_enc.load_state_dict(own.time.state_dict())
    peer.memory.copy_(values)
    peer.last_update.zero_()
    events = view.graph.interactions
    for newest, eldest in ((22, 40), (8, 21), (1, 7)):
        now = (events.age_days >= newest) & (events.age_days <= eldest)
        kind = nn.functional.one_hot(events.event_type_index[now], 2).float()
        item = events.item_index[now] + view.graph.user_count
        peer.update_state(events.user_index[now], item, (oldest - events.age_days[now]).long(), kind)
    found = own.remember(values, Events.of(view)[0], own.table(torch.arange(oldest + 1)), 7)
    assert_close(found, peer.memory)
    assert (found != values).any(1).all()


@torch.no_grad()
@pytest.mark.parametrize("clock", [Clock(), Clock(10.0)])
def test_attention_over_the_last_events_is_that_of_torch_geometric_with_shares_by_weight(clock: Clock) -> None:
    """α ∝ w exp(x): as if an event of weight 8 were there eight times."""
    view = View.of(visited((40, 10, 30, 20, 10, 40)), clock)
    own: Any = TGN(view, D, 1, 0.0)
    values, last = values_of(view), Events.of(view)[1]
    layer, table = own.layers[0], own.table(torch.arange(41))
    nn.init.normal_(layer.lin_edge.weight)
    pairs, said = torch.stack([last.source, last.target]), last.kind * 41 + last.age_days
    memory = own.remember(values, Events.of(view)[0], table, 7)
    found = own(view, values)
    assert_close(found[:, : 2 * D], torch.cat([values, memory], 1))
    copies = (last.weight / last.weight.min()).round().long()
    assert copies.max() == (1 if clock == Clock() else 8)
    peer = TransformerConv(D, D // HEADS, HEADS, edge_dim=2 + TIMES)
    peer.load_state_dict(layer.state_dict())
    expected = peer(memory, pairs.repeat_interleave(copies, 1), table[said.repeat_interleave(copies)])
    torch.testing.assert_close(found[:, 2 * D :], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_memory_hears_recent_events_of_a_round_more_and_attention_reads_how_long_ago() -> None:
    view = View.of(visited(), Clock(10.0))
    own: Any = TGN(view, D, 1, 0.0)
    values = values_of(view)
    still = View.of(view.graph, Clock())
    nn.init.normal_(own.layers[0].lin_edge.weight)
    table = own.table(torch.arange(41))
    decayed, plain = (own.remember(values, Events.of(one)[0], table, 7) for one in (view, still))
    assert not torch.allclose(decayed[0], plain[0], atol=1e-4)
    shifted = View.of(visited((41, 10, 31, 3, 13, 4)), still.clock)  # the same events a day later: only φ(age) differs
    assert not torch.allclose(own(shifted, values)[:, 2 * D :], own(still, values)[:, 2 * D :], atol=1e-5)


@torch.no_grad()
def test_of_the_last_events_each_node_has_its_newest() -> None:
    graph = tiny_graph([(0, item, 100 - item) for item in range(40)])
    last = Events.of(View.of(graph, Clock()))[1]
    assert sorted(last.age_days[last.target == 0].tolist()) == list(range(61, 93))  # 32 of them
    assert (last.age_days[last.target == 1 + 39] == 61).all()


def befriended(graph: Graph, pairs: list[tuple[int, int]]) -> Graph:
    return replace(graph, user_users=edges(pairs))


@torch.no_grad()
def test_without_friends_social_gcn_is_light_gcn() -> None:
    graph = befriended(shop(), [(0, 2), (4, 2)])
    view = View.of(graph, Clock(100.0))
    own: Any = SocialGCN(view, D, 2, 0.0)
    values = values_of(view)
    alone = LightGCN(view, D, 2, 0.0)(unsocial(view), values)
    assert_close(own(view, values), alone)  # γ starts at 0
    nn.init.normal_(own.influence)
    found = own(view, values)
    social = (found - alone).abs().amax(1) > 1e-6
    assert torch.nonzero(social).squeeze(1).tolist() == [0, 2, 4]


@torch.no_grad()
def test_friends_are_heard_as_themselves_and_by_what_they_took() -> None:
    """User 1 has one friend, user 0, who took item 0 alone; layer 0 hears the friend's vector, layer 1 that of the item."""
    graph = befriended(tiny_graph([(0, 0, 1), (1, 1, 1)]), [(0, 1)])
    view = View.of(graph, Clock())
    own: Any = SocialGCN(view, 2, 1, 0.0)
    values = values_of(view, 2)
    own.influence.copy_(torch.tensor([[2.0, 0.5], [1.0, -3.0]]))
    friends = 1 / 2  # a friendship and its reverse share γ
    homophily, influence = own.influence[0] * values[0], own.influence[1] * values[2]
    expected = (values[1] + values[3] + friends * (homophily + influence)) / 2
    assert_close(own(View.of(graph, Clock()), values)[1], expected)


def test_a_user_without_events_gets_what_friends_like() -> None:
    graph = befriended(shop(), [(user, (user + 2) % 30) for user in range(30)])
    learned = fit_network(graph, HORIZON_DAYS, ModelSettings(), 50.0, name="social_gcn", dimension=16, head=0.0)
    for friend, half in ((4, 0), (5, 1)):
        now = befriended(graph, [*((user, (user + 2) % 30) for user in range(30)), (30, friend)])
        scores = learned(now).scores(torch.tensor([30]), "discover")[0, :12].view(2, 6).mean(1)
        assert int(scores.argmax()) == half


@torch.no_grad()
def test_content_is_added_to_the_vector_of_the_graph() -> None:
    """Item 0 has facts 0 and 1, item 1 none; user 0 took item 0, user 1 item 1."""
    graph = tiny_graph([(0, 0, 5), (1, 1, 5)], item_entities=edges([(0, 0), (0, 1)]))
    view = View.of(graph, Clock())
    own: Any = WithContent(view, D, 2, 0.0)
    values = values_of(view)
    nn.init.normal_(own.content.weight)
    added = own(view, values) - own.graph(view.only("user", "item"), values)
    content = own.content((values[4] + values[5]) / 2)
    assert_close(added[:4], torch.stack([content, 0 * content, content, 0 * content]))


@torch.no_grad()
def test_the_last_items_of_a_user_are_the_newest_first_with_weights_of_the_clock() -> None:
    graph = tiny_graph([(0, 0, 30), (0, 1, 10), (2, 2, 3), *((1, item, 50 - item) for item in range(25))])
    known, items, log_weight = last_items(View.of(graph, Clock(10.0)))
    assert known.tolist() == [0, 1, 2]
    assert items[0, :3].tolist() == [1, 0, -1] and items[1].tolist() == list(range(24, 4, -1))
    assert_close(log_weight[0, :2].exp(), torch.tensor([1.0, 0.25]))
    assert (log_weight[0, 2:] == -torch.inf).all()
    assert not last_items(View.of(graph, Clock()))[2][1].any()


@torch.no_grad()
def test_a_sequence_adds_what_its_newest_item_asks_of_the_items_by_weight() -> None:
    graph = tiny_graph([(0, 0, 30), (0, 1, 10), (1, 1, 10)], users=3)
    view = View.of(graph, Clock(10.0))
    own: Any = WithSequence(view, D, 2, 0.0)
    values = values_of(view)
    nn.init.normal_(own.place)
    added = own(view, values) - own.graph(view, values)
    read = torch.stack([values[4] + own.place[0], values[3] + own.place[1]])  # items 1 and 0
    logits = own.offer(read) @ own.ask(read[0]) / D**0.5 + torch.tensor([1.0, 0.25]).log()
    assert_close(added[0], logits.softmax(0) @ own.told(read))
    assert_close(added[1], own.told(read[0]))
    assert not added[2:].any()


@pytest.mark.parametrize("name", ["ggnn", "mpnn", "tgn", "social_gcn", "content_gnn", "sequence_gnn"])
def test_tastes_are_told_apart(name: str) -> None:
    assert_tastes_are_told_apart(partial(fit_network, name=name, dimension=16))

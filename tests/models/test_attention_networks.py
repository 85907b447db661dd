"""Attention and relations: PyG's layers where all weights are 1, and sums in which old edges fade."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, HANConv, HGTConv, RGCNConv

from models.graph import Graph
from models.hops import Hop
from models.networks import network
from models.networks.gat import GAT, Heard, attend, dots
from models.networks.han import AlongHAN, walked
from models.networks.hgt import AlongHGT, edges_of
from models.networks.inputs import Inputs
from models.networks.kgat import KGAT, TransEKGAT
from models.networks.knowledge import MODELS, Triples, drawn, embed, pretrain, vectors
from models.networks.relational import AlongRGCN
from models.networks.training import fit_network
from models.networks.view import KINDS, Clock, View
from models.propagation import Adjacency
from tests.models.canary import assert_tastes_are_told_apart, shop
from tests.models.tiny import edges, tiny_graph

NAMES = ("gat", "rgcn", "han", "hgt", "kgat")
DIMENSION = 8
FAINT = 2.0**-20


def once() -> Graph:
    """The shop with one event a pair: without a clock all weights are 1."""
    bought = shop().interactions
    pairs = set(zip(bought.user_index.tolist(), bought.item_index.tolist(), strict=True))
    events = [(user, item, 1 + 7 * user + item) for user, item in pairs]
    return tiny_graph(events, users=31, item_entities=shop().item_entities)


@pytest.fixture(scope="module")
def view() -> View:
    return View.of(once(), Clock())


@pytest.fixture(scope="module")
def values(view: View) -> Tensor:
    return torch.randn(view.node_count, DIMENSION, generator=torch.Generator().manual_seed(3))


def made(name: str, view: View) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return network(name)(view, DIMENSION, 2, 0.0)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def faded(view: View, weight: float | None) -> View:
    """Some of what users bought, in both directions, at another weight; None = not at all."""
    relations = dict(view.relations)
    for name, relation in view.relations.items():
        if {name[0], name[2]} == {"user", "item"}:
            user, item = relation.edge_index if name[0] == "user" else relation.edge_index.flip(0)
            chosen = (user + item) % 5 == 0
            if weight is None:
                relations[name] = relation.where(~chosen)
            else:
                relations[name] = replace(relation, weight=torch.where(chosen, weight, relation.weight))
    return replace(view, relations=relations)


# Sums with learned weights


def test_gradients_of_learned_sums_are_right_where_edges_repeat_and_rows_are_empty() -> None:
    dice = torch.Generator().manual_seed(0)
    row, column = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([1, 1, 4, 0, 1])
    adjacency = Adjacency.build(row, column, 4, 5)
    rows, columns = (torch.randn(n, 2, 3, generator=dice, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    shares = torch.randn(5, 2, generator=dice, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(4, 2, 3, dtype=torch.float64).index_add(0, row, shares[..., None] * columns[column])
    torch.testing.assert_close(attend(adjacency, shares, columns), expected)
    torch.testing.assert_close(dots(adjacency, rows, columns), (rows[row] * columns[column]).sum(2))
    assert torch.autograd.gradcheck(lambda s, c: attend(adjacency, s, c), (shares, columns))
    assert torch.autograd.gradcheck(lambda r, c: dots(adjacency, r, c), (rows, columns))


def test_shares_are_weights_times_the_exponentials() -> None:
    """Of two edges with logits 0 and log 3 and weights 1/2 and 1/4 the shares are 2/5 and 3/5."""
    heard = Heard.of(torch.tensor([[1, 0], [0, 0]]), torch.tensor([0.5, 0.25]), 2, 2)
    assert_close(heard.shares(torch.tensor([[0.0], [3.0]]).clamp(min=1).log())[:, 0], torch.tensor([0.4, 0.6]))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_edge_fades_with_its_weight(name: str, view: View, values: Tensor) -> None:
    model = made(name, view).eval()
    without = model(faded(view, None), values)
    assert_close(model(faded(view, FAINT), values), without, 1e-3)
    assert (model(view, values) - without).abs().max() > 0.02


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_linked_yet_is_no_obstacle(name: str, view: View, values: Tensor) -> None:
    """Before there are facts, before there is anything, and in a shop of which nothing is known but what is bought."""
    no_facts = replace(once(), item_entities=edges())
    empty = replace(no_facts, interactions=once().interactions.where(torch.zeros(0, dtype=torch.int64)))
    unknown = View.of(replace(no_facts, entity_count=0), Clock())
    for bare in (View.of(no_facts, Clock(), like=view), View.of(empty, Clock(), like=view), unknown):
        found = made(name, bare)(bare, values[: bare.node_count])
        found.square().sum().backward()
        assert found.isfinite().all() and len(found) == bare.node_count


@pytest.mark.parametrize("name", NAMES)
def test_tastes_are_told_apart(name: str) -> None:
    assert_tastes_are_told_apart(partial(fit_network, name=name, dimension=16, dates=8))


# GAT


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_gat_is_that_of_torch_geometric(layers: int, view: View, values: Tensor) -> None:
    own, edge = GAT(view, DIMENSION, layers, 0.0), view.joined[0].edge_index
    states, (edge_index, alphas) = own(view, values).split(DIMENSION, 1), own.attention(view, values)
    assert_close(states[0], values)
    for place, layer in enumerate(own.layers):
        last = place == layers - 1
        peer = GATConv(DIMENSION, DIMENSION if last else DIMENSION // 4, 4, concat=not last)
        peer.load_state_dict(layer.state_dict())
        after, (edges_there, alpha) = peer(states[place], edge, return_attention_weights=True)
        assert_close(states[place + 1], after if last else torch.nn.functional.elu(after))
        order = torch.argsort(edges_there[1], stable=True)
        assert torch.equal(edge_index, edges_there[:, order])
        assert_close(alphas[place], alpha[order])


@torch.no_grad()
def test_attention_tells_which_items_a_user_was_heard_by_and_prefers_recent_ones() -> None:
    """Equal items, bought a day and two half-lives ago: α is as 4 to 1, and the loop takes Σ w² / Σ w."""
    graph = tiny_graph([(0, 0, 1), (0, 1, 21), (1, 2, 1)], users=3)
    view = View.of(graph, Clock(10.0))
    same = torch.ones(view.node_count, DIMENSION)
    share = GAT(view, DIMENSION, 2, 0.0).attention_to_items(view, same, torch.tensor([2, 0]))
    weight = torch.tensor([2**-0.1, 2**-2.1, 0.0])
    loop = weight.square().sum() / weight.sum()
    assert_close(share, torch.stack([torch.zeros(3), weight / (weight.sum() + loop)]))


# Relations


@torch.no_grad()
def test_relational_layers_are_those_of_torch_geometric(view: View, values: Tensor) -> None:
    own = AlongRGCN(DIMENSION, DIMENSION, len(view.relations))
    peer = RGCNConv(DIMENSION, DIMENSION, len(view.relations))
    peer.load_state_dict(own.state_dict())
    joined, kind = view.joined
    weights = [view.hop(name, mean=True).weight for name in view.relations]
    hops = [Hop(*one) for one in zip(view.ends.adjacency, weights, strict=True)]
    assert_close(own(values, view.ends, hops), peer(values, joined.edge_index, kind))


@torch.no_grad()
def test_transformers_are_those_of_torch_geometric(view: View, values: Tensor) -> None:
    known = [str(kind) for kind in KINDS], list(view.relations)
    own, peer = AlongHGT(DIMENSION, DIMENSION, known, 4), HGTConv(DIMENSION, DIMENSION, known, 4)
    for prior in own.p_rel.values():
        prior.uniform_()
    peer.load_state_dict(own.state_dict())
    own.weight, own.ends = torch.ones(len(view.joined[1])), view.ends
    local = {name: view.local(name) for name in view.relations}
    for kind, expected in peer(view.split(values), local).items():
        assert_close(own(view.split(values), edges_of(view))[kind], expected)


# Meta-paths


@torch.no_grad()
def test_han_is_that_of_torch_geometric(view: View, values: Tensor) -> None:
    walks = walked(view)
    known = [str(kind) for kind in KINDS], list(walks.relations)
    own, peer = AlongHAN(DIMENSION, DIMENSION, known, 4), HANConv(DIMENSION, DIMENSION, known, 4)
    peer.load_state_dict(own.state_dict())
    local = {name: walks.local(name) for name in walks.relations}
    count = {kind: place.stop - place.start for kind, place in view.kinds.items()}
    heard = {
        name: Heard.of(edge, torch.ones(edge.shape[1]), count[name[0]], count[name[2]]) for name, edge in local.items()
    }
    found, expected = own(view.split(values), heard), peer(view.split(values), local)
    for kind in ("user", "item"):
        assert_close(found[kind], expected[kind])


@pytest.mark.parametrize("event_types", [("purchase",), ("purchase", "view")])
def test_a_path_weighs_the_chance_to_walk_it(event_types: tuple[str, ...]) -> None:
    """User 0 has items 0 and 1, user 1 item 1: 3 of 4 walks from user 0 come home. Repeated edges change nothing."""
    pairs = [(0, 0), (0, 1), (1, 1)]
    events = [(user, item, 1, kind) for user, item in pairs for kind in range(len(event_types))]
    walks = walked(View.of(tiny_graph(events, event_types=event_types), Clock()))
    assert dense(walks, "user", "item") == [[0.75, 0.25], [0.5, 0.5]]
    assert dense(walks, "item", "user") == [[0.5, 0.5], [0.25, 0.75]]


def test_a_path_over_old_events_is_walked_less() -> None:
    """As above, with user 0's item 1 bought two half-lives before item 0: 1/5 of the way there."""
    graph = tiny_graph([(0, 0, 1), (0, 1, 21), (1, 1, 21)])
    chances = dense(walked(View.of(graph, Clock(10.0))), "user", "item")
    assert_close(torch.tensor(chances), torch.tensor([[0.9, 0.1], [0.5, 0.5]]))


def test_a_node_keeps_its_likeliest_paths() -> None:
    walks = walked(View.of(tiny_graph([(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 1), (2, 0, 1)]), Clock()), width=1)
    assert [len(relation.weight) for relation in walks.relations.values()] == [3, 2, 0]


def dense(walks: View, end: str, middle: str) -> list[list[float]]:
    name = (end, f"over_{middle}", end)
    count = walks.kinds[end].stop - walks.kinds[end].start
    matrix = torch.zeros(count, count)
    source, target = walks.local(name)
    matrix[target, source] = walks.relations[name].weight
    return matrix.tolist()


# Knowledge


@torch.no_grad()
def test_knowledge_attention_is_that_of_the_paper_times_the_weight(view: View, values: Tensor) -> None:
    fading = faded(view, 0.125)
    model = KGAT(fading, DIMENSION, 1, 0.0)
    found = model.attention(fading, values)
    joined, kind = fading.joined
    tail, head = joined.edge_index
    transform, relation = model.project[kind], model.relation[kind]
    told, asked = ((values[node][:, None] @ transform)[:, 0] for node in (tail, head))
    expected = joined.weight * ((told * torch.tanh(asked + relation)).sum(1)).exp()
    total = torch.zeros(fading.node_count).index_add_(0, head, expected)
    assert_close(found.weight, expected / total[head])


def test_the_knowledge_loss_tells_true_tails_from_others(view: View) -> None:
    """Items 0-5 are of entity 0, items 6-11 of entity 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs, model = Inputs(view, DIMENSION, user_ids=False, id_dropout=0.0), KGAT(view, DIMENSION, 2, 0.0)
        optimizer = torch.optim.Adam([*inputs.parameters(), *model.parameters()], lr=0.03)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            losses.append(model.beside(view, inputs))
            losses[-1].backward()
            optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    place = list(view.relations).index(("entity", "rev_is", "item"))
    with torch.no_grad():
        told = inputs(view) @ model.project[place]
        asked = told[view.kinds["item"]][:12] + model.relation[place]
        nearest = torch.cdist(asked, told[view.kinds["entity"]]).argmin(1)
    assert nearest.tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize("name", MODELS)
def test_true_triples_rank_above_corrupted_ones(name: str) -> None:
    triples = Triples.of(View.of(once(), Clock()))
    assert triples.node_count == 15 and triples.relation_count == 1 and len(triples.head) == 12
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = embed(name, triples, DIMENSION)
    with torch.no_grad():
        true = model(triples.head, triples.relation, triples.tail)
        false = model(triples.head, triples.relation, 27 - triples.tail)  # entities are 13 and 14
    assert (true > false).all()
    assert vectors(model).shape == (15, DIMENSION)


def test_pretraining_moves_alike_what_is_known_alike_and_nothing_else(view: View) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs = Inputs(view, DIMENSION, user_ids=True, id_dropout=0.0)
        before = inputs.own.detach().clone()
        KGAT(view, DIMENSION, 1, 0.0).begin(view, inputs)
        assert torch.equal(inputs.own, before)
        TransEKGAT(view, DIMENSION, 1, 0.0).begin(view, inputs)
    after, items = inputs.own.detach(), view.kinds["item"].start
    moved = (after != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == [*range(items, items + 12), items + 13, items + 14]
    assert 0.05 < after[moved].std() < 0.2
    likeness = torch.nn.functional.normalize(after[items : items + 12], dim=1)
    likeness = (likeness @ likeness.T).view(2, 6, 2, 6).mean((1, 3))
    assert likeness.diagonal().min() > likeness[0, 1] + 0.2


def test_triples_are_drawn_by_weight() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        count = torch.bincount(drawn(torch.tensor([1.0, 0.0, 3.0, 0.0]), 4000), minlength=4)
    assert count[1] == count[3] == 0 and abs(int(count[0]) - 1000) < 150


def test_events_are_no_facts() -> None:
    view = View.of(shop(), Clock(inf))
    assert len(Triples.of(view.only("user", "item")).head) == 0
    inputs = Inputs(view, DIMENSION, user_ids=False, id_dropout=0.0)
    before = inputs.own.detach().clone()
    pretrain("rotate", view.only("user", "item"), inputs)
    assert torch.equal(inputs.own, before)

"""Samplers against full graphs: what they find is from before the seed's day, no more than asked for, and right on average."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.networks import sampling
from models.networks.sampling import KnownEdges, Pick, TimeIndex, before, drawn, hops
from models.networks.subgraphs import (
    SAINT,
    cluster_batches,
    clusters,
    column_importance,
    layer_wise,
    saint_nodes,
    saint_weights,
)
from models.networks.walks import importance, page_rank, step

PICKS = ("most_recent", "uniform", "recency_weighted")
dated_edges = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 9)), max_size=40)
asked = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 10)), min_size=1, max_size=6)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def columns(rows: list[tuple[int, ...]], width: int) -> list[Tensor]:
    return list(torch.tensor(rows, dtype=torch.int64).reshape(-1, width).T.contiguous())


def indexed(rows: list[tuple[int, ...]], nodes: int = 7) -> tuple[TimeIndex, list[Tensor]]:
    """Of (source, target, age) rows, weights 1, 2, 3, …"""
    source, target, age = columns(rows, 3)
    index = TimeIndex.build(source, target, age.int(), torch.arange(1, len(rows) + 1).float(), nodes)
    return index, [source, target, age]


def picked(index: TimeIndex, how: str, seed: int = 0) -> Pick:
    if how == "most_recent":
        return index.most_recent
    if how == "uniform":
        return partial(index.uniform, dice=dice(seed))
    return partial(index.recency_weighted, half_life_days=3.0, dice=dice(seed))


@pytest.mark.parametrize("how", PICKS)
@given(rows=dated_edges, wanted=asked, k=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_picked_edges_are_distinct_earlier_ones_and_as_many_as_there_are_up_to_k(
    how: str, rows: list[tuple[int, ...]], wanted: list[tuple[int, ...]], k: int
) -> None:
    index, (_, target, age) = indexed(rows)
    seeds, seed_age = columns(wanted, 2)
    row, edge = picked(index, how)(seeds, seed_age, k)
    assert (row.diff() >= 0).all()
    assert (target[edge] == seeds[row]).all()
    assert (age[edge] > seed_age[row]).all()
    for place, (node, day) in enumerate(wanted):
        mine = edge[row == place].tolist()
        assert len(set(mine)) == len(mine) == min(k, sum(t == node and a > day for _, t, a in rows))
        if how == "most_recent":
            assert [rows[one][2] for one in mine] == sorted(a for _, t, a in rows if t == node and a > day)[:k]


@pytest.mark.parametrize("how", PICKS)
@given(rows=dated_edges, wanted=asked, fan_outs=st.lists(st.integers(1, 3), min_size=1, max_size=3))
@settings(deadline=None, max_examples=60)
def test_no_hop_passes_an_edge_on_or_after_the_day_of_its_seed(
    how: str, rows: list[tuple[int, ...]], wanted: list[tuple[int, ...]], fan_outs: list[int]
) -> None:
    index, (source, target, age) = indexed(rows)
    seeds, seed_age = columns(wanted, 2)
    found = hops(index, seeds, seed_age, fan_outs, picked(index, how))
    assert torch.equal(found.node[found.seed], seeds)
    assert torch.equal(found.age_days[found.seed], seed_age)
    assert len(set(zip(found.node.tolist(), found.age_days.tolist(), strict=True))) == len(found.node)
    for layer in found.layers:
        out, into = layer.edge_index
        assert torch.equal(found.node[out], source[layer.edge])
        assert torch.equal(found.node[into], target[layer.edge])
        assert torch.equal(found.age_days[out], found.age_days[into])  # inherited along every edge, so from the seed
        assert (age[layer.edge] > found.age_days[into]).all()
        assert (out < layer.source_count).all() and (into < layer.target_count).all()
        assert (torch.bincount(into, minlength=1) <= max(fan_outs)).all()
    counts = [layer.target_count for layer in found.layers]
    assert counts == [layer.source_count for layer in found.layers[1:]] + [len(torch.unique(found.seed))]


@given(rows=dated_edges, wanted=asked)
@settings(deadline=None, max_examples=60)
def test_walks_see_only_what_is_reached_over_earlier_edges(
    rows: list[tuple[int, ...]], wanted: list[tuple[int, ...]]
) -> None:
    index, _ = indexed(rows)
    seeds, seed_age = columns(wanted, 2)
    row, node, alpha = importance(index, seeds, seed_age, 3, dice(), walks=20, steps=3)
    for place, (home, day) in enumerate(wanted):
        reached = {home}
        for _ in range(3):
            reached |= {s for s, t, a in rows if t in reached and a > day}
        mine = node[row == place].tolist()
        assert set(mine) <= reached - {home}
        assert len(mine) <= 3
        if mine:
            assert float(alpha[row == place].sum()) == pytest.approx(1.0)
            assert (alpha[row == place].diff() <= 0).all()


def test_the_future_changes_no_bit_of_what_is_sampled() -> None:
    rows = [(n % 5, (3 * n) % 7, 5 + n % 9) for n in range(40)]
    seeds, seed_age = torch.arange(7), torch.full((7,), 4)
    found = []
    for late in ([], [(6, node, age) for node in range(7) for age in (1, 4)]):
        index, _ = indexed(rows + late)
        parts = [hops(index, seeds, seed_age, [2, 2], picked(index, how)) for how in PICKS]
        walked = importance(index, seeds, seed_age, 3, dice(), walks=30)
        source, target, age, weight = *columns(rows + late, 3), index.weight
        known = before(source, target, age, weight, 7, 4)
        part = saint_nodes(known, 4, dice())
        found.append([*(torch.cat([p.node, *(layer.edge for layer in p.layers)]) for p in parts), *walked])
        found[-1] += [part.node, known.edge[part.edge], clusters(known, 2, dice()), page_rank(known)]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_an_edge_of_the_graphs_own_day_is_refused() -> None:
    with pytest.raises(ValueError, match="0 days old"):
        indexed([(0, 1, 0)])


def test_whole_neighbourhoods_give_what_the_layers_give_on_the_graph_of_the_seeds_day() -> None:
    from torch_geometric.nn import SAGEConv

    rows = torch.randint(0, 30, (400, 2), generator=dice())
    age = torch.randint(1, 20, (400,), generator=dice(1))
    index = TimeIndex.build(rows[:, 0], rows[:, 1], age, torch.ones(400), 30)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convs = [SAGEConv(4, 8), SAGEConv(8, 3)]
    values = torch.randn(30, 4, generator=dice(2))
    seeds, seed_age = torch.tensor([3, 17, 3, 8, 3]), torch.tensor([0, 5, 12, 19, 12])
    found = hops(index, seeds, seed_age, [400, 400], index.most_recent)
    x = values[found.node]
    for conv, layer in zip(convs, found.layers, strict=True):
        x = conv((x[: layer.source_count], x[: layer.target_count]), layer.edge_index).relu()
    for place, (seed, day) in enumerate(zip(seeds, seed_age, strict=True)):
        whole = values
        for conv in convs:
            whole = conv(whole, rows[age > day].T).relu()
        torch.testing.assert_close(x[found.seed[place]], whole[seed])


@pytest.mark.parametrize("degree", [5, 40])
def test_uniform_neighbours_stand_for_all_on_average_and_pairs_are_as_likely_as_they_should_be(degree: int) -> None:
    index, _ = indexed([(0, 1, 1 + n) for n in range(degree)])
    seeds, k = torch.ones(20_000, dtype=torch.int64), 4
    row, edge = index.uniform(seeds, torch.zeros_like(seeds), k, dice())
    share = torch.bincount(edge, minlength=degree) / len(seeds)
    torch.testing.assert_close(share, torch.full((degree,), k / degree), atol=0.02, rtol=0)
    both = torch.zeros(len(seeds), degree).index_put_((row, edge), torch.ones(1))
    together = (both.T @ both / len(seeds))[~torch.eye(degree, dtype=torch.bool)]
    expected = k * (k - 1) / (degree * (degree - 1))
    torch.testing.assert_close(together, torch.full_like(together, expected), atol=0.02, rtol=0)


def test_the_first_of_the_recency_weighted_has_the_odds_of_weight_times_decay() -> None:
    index, _ = indexed([(0, 1, 1), (0, 1, 4), (0, 1, 7), (0, 1, 2)])
    seeds = torch.ones(40_000, dtype=torch.int64)
    _, first = index.recency_weighted(seeds, torch.ones_like(seeds), 1, 3.0, dice())
    expected = torch.tensor([0.0, 2 * 2 ** (-4 / 3), 3 * 2 ** (-7 / 3), 4 * 2 ** (-2 / 3)])
    torch.testing.assert_close(
        torch.bincount(first, minlength=4) / len(seeds), expected / expected.sum(), atol=0.01, rtol=0
    )


def test_weighing_edges_in_parts_is_as_good_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index, (_, target, _) = indexed([(n % 3, n % 7, 1 + n) for n in range(60)])
    seeds = torch.arange(7).repeat(3)
    whole = index.recency_weighted(seeds, torch.zeros_like(seeds), 100, 5.0, dice())
    monkeypatch.setattr(sampling, "MOST_CANDIDATES", 10)
    row, edge = index.recency_weighted(seeds, torch.zeros_like(seeds), 100, 5.0, dice())
    assert torch.equal(row, whole[0])
    assert (target[edge] == seeds[row]).all()
    assert Counter(zip(row.tolist(), edge.tolist(), strict=True)).most_common(1)[0][1] == 1


def test_steps_follow_the_weights_of_the_edges() -> None:
    index, _ = indexed([(0, 6, 2), (1, 6, 3), (2, 6, 1), (3, 5, 1)])
    node = torch.full((40_000,), 6)
    share = torch.bincount(step(index, node, torch.ones_like(node), dice()), minlength=7) / len(node)
    torch.testing.assert_close(share[:3], torch.tensor([1 / 3, 2 / 3, 0.0]), atol=0.01, rtol=0)


def test_walks_count_only_nodes_of_the_wanted_kind_and_find_the_closer_ones_first() -> None:
    """Users 0-2 and items 3-6: user 0 has items 3, 4; user 1 has 4, 5; user 2 has 5, 6."""
    has = [(0, 3), (0, 4), (1, 4), (1, 5), (2, 5), (2, 6)]
    index, _ = indexed([(u, i, 1) for u, i in has] + [(i, u, 1) for u, i in has])
    items = torch.arange(7) > 2
    _, node, alpha = importance(index, torch.tensor([0]), torch.tensor([0]), 7, dice(), 5000, 6, counted=items)
    assert set(node.tolist()) == {3, 4, 5, 6}
    share = dict(zip(node.tolist(), alpha.tolist(), strict=True))
    assert min(share[3], share[4]) > share[5] > share[6]


def test_page_rank_is_that_of_the_closed_form_and_of_a_person() -> None:
    rows = [(0, 1, 1), (1, 2, 1), (2, 0, 1), (0, 2, 1), (3, 0, 1), (2, 4, 1)]
    source, target, age = columns(rows, 3)
    edges = before(source, target, age, torch.ones(6), 5, 0)
    walk = torch.zeros(5, 5).index_put_((target, source), 1 / torch.bincount(source, minlength=5).float()[source])
    for start in (torch.ones(5) / 5, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])):
        dangling = torch.zeros(5, 5)
        dangling[:, 4] = start
        expected = torch.linalg.solve(torch.eye(5) - 0.85 * (walk + dangling), 0.15 * start)
        torch.testing.assert_close(page_rank(edges, start, rounds=200), expected, atol=1e-5, rtol=0)


def planted(parts: int = 4, size: int = 50) -> KnownEdges:
    """Blocks with a tenth as many edges between them as inside; the nodes are in no order."""
    nodes = parts * size
    pairs = torch.randint(0, nodes, (30 * nodes, 2), generator=dice())
    same = (pairs[:, 0] % parts) == (pairs[:, 1] % parts)
    kept = same | (torch.rand(len(pairs), generator=dice(1)) < 0.1 / (parts - 1))
    source, target = pairs[kept].T
    return before(source, target, torch.ones_like(source), torch.ones(len(source)), nodes, 0)


@pytest.mark.parametrize("parts", [2, 3, 5, 8])
def test_clusters_are_even_and_cut_less_than_a_third_of_what_random_ones_cut(parts: int) -> None:
    edges = planted(parts)
    part = clusters(edges, parts, dice())
    size = torch.bincount(part, minlength=parts)
    assert size.max() - size.min() <= parts.bit_length()
    cut = float((part[edges.source] != part[edges.target]).float().mean())
    assert cut < (1 - 1 / parts) / 3  # random parts cut 1 − 1/P of the edges, the planted ones a tenth


def test_cluster_batches_hold_every_node_once_and_all_edges_inside() -> None:
    edges = planted()
    part = clusters(edges, 8, dice())
    batches = list(cluster_batches(edges, part, 3, dice()))
    assert torch.equal(torch.cat([batch.node for batch in batches]).sort().values, torch.arange(edges.node_count))
    for batch in batches:
        inside = torch.isin(edges.source, batch.node) & torch.isin(edges.target, batch.node)
        assert torch.equal(torch.nonzero(inside).squeeze(1), batch.edge)
        assert torch.equal(batch.node[batch.edge_index], torch.stack([edges.source, edges.target])[:, batch.edge])


weighted_rows = [(n % 6, (n * n + 1) % 7, 1 + n % 4) for n in range(30)]


def known(before_age: int = 1) -> tuple[KnownEdges, Tensor]:
    """Edges, those older than that, and the dense A[target, source] of them."""
    source, target, age = columns(weighted_rows, 3)
    weight = torch.linspace(0.1, 1.0, 30)
    edges = before(source, target, age, weight, 7, before_age)
    late = age > before_age
    dense = torch.zeros(7, 7).index_put_((target[late], source[late]), weight[late], accumulate=True)
    return edges, dense


@pytest.mark.parametrize("sample", [*SAINT.values(), partial(saint_nodes, odds=torch.ones(7))])
@pytest.mark.parametrize("before_age", [0, 2, 3, 9])
def test_subgraphs_hold_only_edges_from_before_the_day(sample: Callable[..., object], before_age: int) -> None:
    edges, _ = known(before_age)
    age = torch.tensor([row[2] for row in weighted_rows])
    assert (age[edges.edge] > before_age).all()
    assert len(edges.edge) == int((age > before_age).sum())
    if len(edges.edge):
        part = sample(edges, 3, dice())
        assert (age[edges.edge[part.edge]] > before_age).all()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_drawn_layer_passes_what_the_whole_one_passes_on_average() -> None:
    edges, dense = known()
    targets, values = torch.tensor([5, 2, 1, 0]), torch.randn(7, 3, generator=dice())
    rolls, total = dice(1), torch.zeros(4, 3)
    for _ in range(4000):
        ((node, layer, weight),) = layer_wise(edges, targets, [4], rolls)
        source, target = layer.edge_index
        total.index_add_(0, target, weight[:, None] * values[node[source]])
        assert torch.equal(edges.edge[torch.isin(edges.edge, layer.edge)].sort().values, layer.edge.sort().values)
    torch.testing.assert_close(total / 4000, (dense @ values)[targets], atol=0.06, rtol=0)
    assert torch.allclose(column_importance(edges), _dense_squares(edges))


def _dense_squares(edges: KnownEdges) -> Tensor:
    return torch.zeros(7).double().index_add_(0, edges.source, edges.weight.double().square())


def test_two_drawn_layers_are_unbiased_for_two_whole_ones() -> None:
    edges, dense = known()
    targets, values = torch.tensor([1, 2]), torch.ones(7, 1)
    rolls, total = dice(1), torch.zeros(2, 1)
    for _ in range(4000):
        x = values
        layers = layer_wise(edges, targets, [4, 6], rolls)
        x = values[layers[0][0]]
        for _, layer, weight in layers:
            source, target = layer.edge_index
            x = torch.zeros(layer.target_count, 1).index_add_(0, target, weight[:, None] * x[source])
        total += x
    torch.testing.assert_close(total / 4000, (dense @ dense @ values)[targets], rtol=0.05, atol=0)


@pytest.mark.parametrize("name", SAINT)
def test_weighted_samples_have_the_loss_and_the_sums_of_the_whole_graph_on_average(name: str) -> None:
    edges, dense = known()
    values, rolls = torch.linspace(-1, 2, 7), dice()
    node_weight, edge_weight = saint_weights(edges, lambda: SAINT[name](edges, 4, rolls), 3000)
    loss, sums, met = 0.0, torch.zeros(7), torch.zeros(7)
    for _ in range(3000):
        part = SAINT[name](edges, 4, rolls)
        loss += float((node_weight * values)[part.node].sum())
        source, target = part.edge_index
        passed = part.weight * edge_weight[part.edge] * values[part.node[source]]
        sums.index_add_(0, part.node[target], passed)
        met[part.node] += 1
    reached = met > 0  # a node without weight in or out is never drawn by its edges
    assert loss / 3000 == pytest.approx(float(values[reached].sum()), abs=0.15)
    seen = edge_weight[torch.isin(edges.target, torch.nonzero(reached))]
    assert seen.isfinite().all()
    torch.testing.assert_close((sums / met.clamp(min=1))[reached], (dense @ values)[reached], atol=0.12, rtol=0)


def test_draws_follow_the_weights_and_never_hit_a_weight_of_zero() -> None:
    share = torch.bincount(drawn(torch.tensor([0.0, 1.0, 3.0, 0.0]), 40_000, dice()), minlength=4) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 0.75, 0.0]), atol=0.01, rtol=0)

"""Propagation against dense matrices, with edges that repeat."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.hops import Links
from models.propagation import Adjacency, offsets, propagate, ranges
from tests.models.tiny import edges

EDGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.floats(0.1, 2.0)), max_size=30)


@given(EDGES)
def test_propagation_is_the_dense_product_even_where_edges_repeat(triples: list[tuple[int, int, float]]) -> None:
    triples = sorted(triples, key=lambda triple: triple[0])
    row = torch.tensor([t[0] for t in triples], dtype=torch.int64)
    column = torch.tensor([t[1] for t in triples], dtype=torch.int64)
    weight = torch.tensor([t[2] for t in triples], dtype=torch.float64)
    dense = torch.zeros(5, 6, dtype=torch.float64).index_put_((row, column), weight, accumulate=True)
    values = torch.randn(6, 3, dtype=torch.float64)
    result = propagate(Adjacency.build(row, column, 5, 6), weight, values)
    torch.testing.assert_close(result, dense @ values)


def test_its_gradient_is_right() -> None:
    row, column = torch.tensor([0, 0, 1, 3, 3]), torch.tensor([2, 2, 0, 1, 2])
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1], dtype=torch.float64)
    values = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    adjacency = Adjacency.build(row, column, 4, 3)
    assert torch.autograd.gradcheck(lambda x: propagate(adjacency, weight, x), values)


def test_ranges_lists_every_position_of_every_range() -> None:
    row, position = ranges(torch.tensor([5, 2, 2]), torch.tensor([7, 2, 4]))
    assert row.tolist() == [0, 0, 2, 2]
    assert position.tolist() == [5, 6, 2, 3]


def test_offsets_bound_the_groups_of_a_sorted_index() -> None:
    assert offsets(torch.tensor([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]


def test_a_hop_is_the_mean_over_the_targets_known_at_the_date() -> None:
    links = Links(edges([(1, 0), (1, 2), (0, 1)], age_days=10), source_count=3, target_count=3)
    values = torch.tensor([[2.0], [4.0], [6.0]])
    assert links.hop(back_days=9)(values).flatten().tolist() == [4, 4, 0]
    assert links.hop(back_days=10)(values).flatten().tolist() == [0, 0, 0]
    assert links.hop_from(torch.tensor([1, 2]), 9)(values).flatten().tolist() == [4, 0]

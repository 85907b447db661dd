"""Maximal marginal relevance: the best first, then what is good and unlike what is already there."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from models.diversity import diversify

UNIT = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_a_twin_of_the_best_gives_way_to_something_unlike_it() -> None:
    items, scores = torch.tensor([[0, 1, 3, 2]]), torch.tensor([[10.0, 9.0, 6.0, 5.0]])
    chosen, values = diversify(items, scores, UNIT, 0.5, 2)
    assert chosen.tolist() == [[0, 2]]  # ½·0 − ½·0 beats ½·.8 − ½·1 of the twin and ½·.2 − ½·.6 of item 3
    assert values.tolist() == [[0.5, 0.0]]


def test_without_weight_the_order_stays() -> None:
    items, scores = torch.tensor([[2, 0, 3, -1]]), torch.tensor([[3.0, 2.0, 1.0, -torch.inf]])
    chosen, _ = diversify(items, scores, UNIT, 0.0, 4)
    assert chosen.tolist() == [[2, 0, 3, -1]]


@given(st.integers(0, 10_000), st.floats(0, 0.99), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_every_list_is_full_without_repetition_begins_with_the_best_and_never_rises(
    seed: int, weight: float, k: int
) -> None:
    dice = torch.Generator().manual_seed(seed)
    unit = normalize(torch.randn(20, 4, generator=dice), dim=1)
    scores, items = torch.randn(5, 12, generator=dice).sort(descending=True)
    chosen, values = diversify(items, scores, unit, weight, k)
    assert (chosen[:, 0] == items[:, 0]).all()
    assert all(
        len(set(row)) == k and set(row) <= set(pool) for row, pool in zip(chosen.tolist(), items.tolist(), strict=True)
    )
    assert (values.diff(dim=1) <= 1e-6).all()

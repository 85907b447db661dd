"""Metrics against a case done by hand and against torch_geometric."""

from __future__ import annotations

from math import log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.metrics import (
    LinkPredHitRatio,
    LinkPredMAP,
    LinkPredMRR,
    LinkPredNDCG,
    LinkPredPrecision,
    LinkPredRecall,
)

from models.metrics import METRICS, bootstrap_intervals, coverage, diversity, hits, novelty, popularity_lift
from tests.models.tiny import tiny_graph

ITEMS, K = 12, 4
PEERS = {
    "recall": LinkPredRecall,
    "precision": LinkPredPrecision,
    "hit_rate": LinkPredHitRatio,
    "mrr": LinkPredMRR,
    "map": LinkPredMAP,
    "ndcg": LinkPredNDCG,
}


def test_a_list_with_hits_at_ranks_one_and_three_of_three_true_items() -> None:
    hit, count = hits(
        torch.tensor([[7, 1, 2, 3]]), torch.tensor([5]), torch.tensor([5] * 3), torch.tensor([2, 7, 9]), ITEMS
    )
    values = {name: float(metric(hit, count)) for name, metric in METRICS.items()}
    gained, ideal = 1 + 1 / log2(4), 1 + 1 / log2(3) + 1 / log2(4)
    assert values == pytest.approx(
        {"recall": 2 / 3, "precision": 2 / 4, "hit_rate": 1, "mrr": 1}
        | {"map": (1 + 2 / 3) / 3, "ndcg": gained / ideal}
    )


def test_empty_places_of_a_short_list_are_no_hits() -> None:
    hit, _ = hits(torch.tensor([[1, -1, -1]]), torch.tensor([2]), torch.tensor([2]), torch.tensor([1]), ITEMS)
    assert hit.tolist() == [[True, False, False]]


@given(st.lists(st.tuples(st.permutations(range(ITEMS)), st.sets(st.integers(0, ITEMS - 1), min_size=1)), min_size=1))
@settings(max_examples=30, deadline=None)
def test_all_metrics_are_those_of_torch_geometric(cases: list[tuple[list[int], set[int]]]) -> None:
    items = torch.tensor([ranking[:K] for ranking, _ in cases])
    truth = torch.tensor([(user, item) for user, (_, true) in enumerate(cases) for item in sorted(true)]).T.contiguous()
    hit, count = hits(items, torch.arange(len(cases)), truth[0], truth[1], ITEMS)
    for name, metric in METRICS.items():
        peer = PEERS[name](k=K)
        peer.update(items, truth)
        assert float(metric(hit, count).mean()) == pytest.approx(float(peer.compute()), abs=1e-6), name


def test_coverage_is_the_share_of_live_items_on_any_list() -> None:
    assert coverage(torch.tensor([[0, 1], [1, -1]]), live_count=8) == 2 / 8


def test_novelty_is_the_surprise_of_the_items_in_bits() -> None:
    graph = tiny_graph([(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1), (0, 1, 1)], items=3)
    assert novelty(torch.tensor([[0, -1], [0, 1], [2, -1]]), graph).tolist() == [0, 1, 3]  # known to 4, 1 and ½ of 4


def test_popularity_lift_compares_the_list_with_what_the_user_has() -> None:
    graph = tiny_graph([(0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 1, 1)], users=4)
    lift = popularity_lift(torch.tensor([[0, -1], [0, 1], [0, 1]]), torch.tensor([0, 1, 3]), graph)
    assert lift[:2].tolist() == pytest.approx([3 / 2 - 1, 2 / 3 - 1])
    assert lift[2].isnan()


def test_a_list_is_diverse_where_nobody_has_two_of_its_items() -> None:
    graph = tiny_graph([(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1), (2, 2, 1)], items=4)
    values = diversity(torch.tensor([[0, 1, -1], [0, 2, -1], [0, 1, 2], [0, 3, -1], [0, -1, -1]]), graph)
    assert values[:4].tolist() == pytest.approx([0, 1, 2 / 3, 1], abs=1e-6)
    assert values[4].isnan()


def test_the_bootstrap_resamples_whole_clusters() -> None:
    """Of two clusters with means 0 and 1, 95 % of the draws lie between one cluster alone and the other."""
    low, high = bootstrap_intervals(
        torch.tensor([[0.0], [0.0], [1.0], [1.0]]).numpy(), torch.tensor([0, 0, 1, 1]).numpy()
    )
    assert (low, high) == ([0.0], [1.0])
    one, other = bootstrap_intervals(torch.ones(3, 1).numpy(), torch.zeros(3, dtype=torch.int64).numpy())
    assert (one, other) == ([None], [None])
    normal = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap_intervals(normal.numpy(), torch.arange(400).numpy())
    half = 1.96 * float(normal.std()) / 20
    assert low[0] == pytest.approx(float(normal.mean()) - half, abs=0.02)
    assert high[0] == pytest.approx(float(normal.mean()) + half, abs=0.02)

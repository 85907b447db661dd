"""Metrics against a case done by hand and against torch_geometric."""

from __future__ import annotations

from math import log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.metrics import LinkPredHitRatio, LinkPredMRR, LinkPredNDCG, LinkPredPrecision, LinkPredRecall

from models.metrics import METRICS, coverage, hits

ITEMS, K = 12, 4
PEERS = {
    "recall": LinkPredRecall,
    "precision": LinkPredPrecision,
    "hit_rate": LinkPredHitRatio,
    "mrr": LinkPredMRR,
    "ndcg": LinkPredNDCG,
}


def test_a_list_with_hits_at_ranks_one_and_three_of_three_true_items() -> None:
    hit, count = hits(
        torch.tensor([[7, 1, 2, 3]]), torch.tensor([5]), torch.tensor([5] * 3), torch.tensor([2, 7, 9]), ITEMS
    )
    values = {name: float(metric(hit, count)) for name, metric in METRICS.items()}
    gained, ideal = 1 + 1 / log2(4), 1 + 1 / log2(3) + 1 / log2(4)
    assert values == pytest.approx(
        {"recall": 2 / 3, "precision": 2 / 4, "hit_rate": 1, "mrr": 1, "ndcg": gained / ideal}
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

"""Metrics of top-K lists, per user, as torch_geometric.metrics defines them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from models.graph import Graph

LISTS_AT_A_TIME = 256
ONE_SIDED_90 = 1.2816  # standard errors


def hits(
    items: Tensor, users: Tensor, truth_user: Tensor, truth_item: Tensor, item_count: int
) -> tuple[Tensor, Tensor]:
    """Which list entries are true (bool [U, k]) and how many true items each user has (int64 [U]).

    items: int64 [U, k], −1 = empty. users: int64 [U], ascending, without repetition. truth pairs: distinct, of these users.
    """
    row = torch.searchsorted(users, truth_user)
    pairs = torch.arange(len(users), device=items.device)[:, None] * item_count + items
    found = torch.isin(pairs, row * item_count + truth_item) & (items >= 0)
    return found, torch.bincount(row, minlength=len(users))


def recall(hit: Tensor, truth_count: Tensor) -> Tensor:
    """Hits / true items."""
    return hit.sum(1) / truth_count


def precision(hit: Tensor, truth_count: Tensor) -> Tensor:
    """Hits / k, also where a list is shorter than k."""
    return hit.sum(1) / hit.shape[1]


def hit_rate(hit: Tensor, truth_count: Tensor) -> Tensor:
    """1 where any entry is true."""
    return hit.any(1).float()


def mrr(hit: Tensor, truth_count: Tensor) -> Tensor:
    """1 / rank of the first hit, 0 without one."""
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    return (hit / rank).amax(1)


def ndcg(hit: Tensor, truth_count: Tensor) -> Tensor:
    """Σ hit / log2(rank + 1), divided by its value for an ideal list of min(k, true items) hits."""
    discount = 1 / torch.log2(torch.arange(2, hit.shape[1] + 2, device=hit.device))
    ideal = torch.cumsum(discount, 0)[truth_count.clamp(1, hit.shape[1]) - 1]
    return (hit * discount).sum(1) / ideal


def average_precision(hit: Tensor, truth_count: Tensor) -> Tensor:
    """Mean of the precision at each hit, over min(k, true items) hits: MAP, once averaged over users."""
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    return (hit * hit.cumsum(1) / rank).sum(1) / truth_count.clamp(1, hit.shape[1])


METRICS = {
    "recall": recall,
    "precision": precision,
    "hit_rate": hit_rate,
    "mrr": mrr,
    "map": average_precision,
    "ndcg": ndcg,
}


def coverage(items: Tensor, live_count: int) -> float:
    """Share of the live items that stand on at least one list."""
    return len(torch.unique(items[items >= 0])) / max(1, live_count)


def novelty(items: Tensor, graph: Graph) -> Tensor:
    """Mean −log2 of the share of users who know each item of a list, in bits (Zhou et al. 2010): float32 [U].

    items: int64 [U, k], −1 = empty. An item nobody has counts as known to half a user.
    """
    known_to = _readers(_pairs(graph)[1], graph).clamp(min=0.5) / max(1, graph.user_count)
    return _mean(-torch.log2(known_to)[items.clamp(min=0)], items >= 0)


def popularity_lift(items: Tensor, users: Tensor, graph: Graph) -> Tensor:
    """Mean number of users of the listed items over that of the user's own items, minus 1: float32 [U].

    NaN without history. users: int64 [U], ascending (Abdollahpouri et al. 2019, arXiv 1907.13286).
    """
    user, item = _pairs(graph)
    readers = _readers(item, graph)
    own = torch.zeros(graph.user_count).index_add_(0, user, readers[item])
    own /= torch.bincount(user, minlength=graph.user_count)
    return _mean(readers[items.clamp(min=0)], items >= 0) / own[users] - 1


def diversity(items: Tensor, graph: Graph) -> Tensor:
    """1 − the mean cosine of two items of a list, as columns of who has what: float32 [U], NaN below two items.

    The cosines of the items that are listed are computed once, then summed over each list's pairs.
    """
    user, item = _pairs(graph)
    readers = _readers(item, graph)
    unit = readers.clamp(min=1).rsqrt()[item]
    shown = items >= 0
    listed, column = torch.unique(items[shown], return_inverse=True)
    columns = csr_array((unit.numpy(), (item.numpy(), user.numpy())), shape=(graph.item_count, graph.user_count))
    columns = columns[listed.numpy()]
    row, count = torch.nonzero(shown)[:, 0].numpy(), shown.sum(1)
    chosen = csr_array((np.ones(len(row), "float32"), (row, column.numpy())), (len(items), len(listed)))
    sums = list(_sums_of_pairs(chosen, columns @ columns.T))
    alone = (readers > 0)[items.clamp(min=0)] & shown  # items of nobody resemble nothing
    similar = torch.from_numpy(np.concatenate([*sums, np.zeros(0)])).float() - alone.sum(1)
    return torch.where(count > 1, 1 - similar / (count * (count - 1)), torch.nan)


def _sums_of_pairs(rows: Any, cosines: Any) -> Iterator[Any]:
    for start in range(0, rows.shape[0], LISTS_AT_A_TIME):
        part = rows[start : start + LISTS_AT_A_TIME]
        yield (part @ cosines).multiply(part).sum(axis=1)


def _pairs(graph: Graph) -> tuple[Tensor, Tensor]:
    """Distinct users and items of the events: int64 [P] each."""
    events = graph.interactions
    pairs = torch.unique(events.user_index * graph.item_count + events.item_index)
    return pairs // graph.item_count, pairs % graph.item_count


def _readers(item: Tensor, graph: Graph) -> Tensor:
    """Users of each item: float32 [I]. item: of distinct pairs."""
    return torch.bincount(item, minlength=graph.item_count).float()


def _mean(values: Tensor, kept: Tensor) -> Tensor:
    return (values * kept).sum(1) / kept.sum(1)


def paired_difference(one: Tensor, other: Tensor, users: Tensor) -> tuple[float, float]:
    """Mean of one − other and its lower one-sided 90 % bound, with standard errors robust to clusters of one user's rows.

    one, other: float32 [N]; users: int64 [N]. With fewer than two users the bound is −∞.
    """
    difference = (one - other).double()
    _, cluster = torch.unique(users, return_inverse=True)
    clusters = int(cluster.max()) + 1
    mean = difference.mean()
    if clusters < 2:
        return float(mean), -float("inf")
    residual = torch.zeros(clusters, dtype=torch.float64).index_add(0, cluster, difference - mean)
    error = (residual.square().sum() * clusters / (clusters - 1)).sqrt() / len(difference)
    return float(mean), float(mean - ONE_SIDED_90 * error)


def bootstrap_intervals(
    values: np.ndarray, cluster: np.ndarray, draws: int = 1000, seed: int = 0
) -> tuple[list[float | None], list[float | None]]:
    """95 % percentile intervals of each column's mean, whole clusters of rows drawn with replacement: (low, high) [M].

    values: float64 [N, M]; cluster: int [N], 0..C-1. None where there are fewer than two clusters (Efron 1979).
    """
    clusters = int(cluster.max()) + 1 if len(cluster) else 0
    if clusters < 2:
        return [None] * values.shape[1], [None] * values.shape[1]
    rows = csr_array(
        (np.ones(len(cluster)), (cluster.astype("int64"), np.arange(len(cluster)))), (clusters, len(cluster))
    )
    sums, counts = rows @ values, rows.sum(axis=1)
    drawn = (
        np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws).astype("float64")
    )
    means = (drawn @ sums) / (drawn @ counts)[:, None]
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return low.tolist(), high.tolist()

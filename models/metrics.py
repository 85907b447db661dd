"""Metrics of top-K lists, per user, as torch_geometric.metrics defines them."""

from __future__ import annotations

import torch
from torch import Tensor

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


METRICS = {"recall": recall, "precision": precision, "hit_rate": hit_rate, "mrr": mrr, "ndcg": ndcg}


def coverage(items: Tensor, live_count: int) -> float:
    """Share of the live items that stand on at least one list."""
    return len(torch.unique(items[items >= 0])) / max(1, live_count)


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

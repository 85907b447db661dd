"""Which ranker a list is published from: evidence against the model blocks it, noise changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.evaluation import MODEL, Evaluation

ONE_SIDED_90 = 1.2816  # standard errors
FALLBACK = {"for_you": "repeat_trend", "discover": "decayed_popularity"}


@dataclass(frozen=True)
class Decision:
    """What to publish and why. `difference` is NDCG of the blocking (else of the best) baseline minus the model's."""

    list_name: str
    ranker: str
    blocked_by: str | None
    difference: float | None
    lower_bound: float | None  # of the difference, one-sided 90 %
    why: str


def decide(evaluation: Evaluation, list_name: str, incumbent: str | None) -> Decision:
    """The model, unless a baseline is better with a one-sided 90 % interval; within noise the incumbent stays."""
    if not len(evaluation.user_index.get(list_name, ())):
        fallback = FALLBACK[list_name if evaluation.repeats else "discover"]
        why = f"{list_name}: {fallback}, because the history holds nothing to judge it on"
        return Decision(list_name, fallback, None, None, None, why)
    ndcg, users = evaluation.user_ndcg[list_name], evaluation.user_index[list_name]
    baselines = sorted((name for name in ndcg if name != MODEL), key=lambda name: (-float(ndcg[name].mean()), name))
    against = {name: paired_difference(ndcg[name], ndcg[MODEL], users) for name in baselines}
    blockers = [name for name in baselines if against[name][1] > 0]
    chosen, rival = (blockers[0], blockers[0]) if blockers else (MODEL, baselines[0])
    difference, lower = against[rival]
    figures = f"{rival} minus {MODEL}: NDCG@{evaluation.k} {difference:+.4f}, at least {lower:+.4f} (one-sided 90 %)"
    if incumbent in ndcg and incumbent not in (chosen, MODEL if blockers else None):
        _, gain = paired_difference(ndcg[chosen], ndcg[incumbent], users)
        if gain <= 0:
            why = f"{list_name}: {incumbent} stays, {chosen} is not better beyond noise; {figures}"
            return Decision(list_name, incumbent, blockers[0] if blockers else None, difference, lower, why)
    reason = "blocks the model" if blockers else "no baseline blocks the model"
    why = f"{list_name}: {chosen}, {reason}; {figures}"
    return Decision(list_name, chosen, blockers[0] if blockers else None, difference, lower, why)


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

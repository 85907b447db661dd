"""Which ranker a list is published from: evidence against the model blocks it, noise changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from models.evaluation import Evaluation
from models.metrics import paired_difference
from models.settings import MODEL

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
    if not baselines:
        return Decision(list_name, MODEL, None, None, None, f"{list_name}: {MODEL}, with nothing to compare it with")
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

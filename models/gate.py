"""The publish gate: which ranker a list is from, and which limits the finished lists must keep; noise decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from models.evaluation import Evaluation
from models.metrics import ONE_SIDED_90, paired_difference
from models.settings import MODEL

FALLBACK = {"for_you": "repeat_trend", "discover": "decayed_popularity"}
FLOORS = {"support": 0.1, "support_of_new": 0.1, "popularity": 0.1, "order": 0.5, "graded": 0.5, "first_kept": 0.8}
FLOORS |= {"agreement": 0.0}
# which compare with the last publication: asked of the same ranker only
FOLLOWING = ("overlap", "recognised", "first_kept", "agreement")
# which may drop where no user is known
PERSONAL = ("support", "support_of_new", "coverage", "spread", "overlap", "recognised", "fresh_repeats")
MOST_DROP = {"recognised": 0.1}  # of what hardly moves from one publication to the next, where max_drop allows more
SAME_FOR_ALL = ("popularity", "recent_popularity", "decayed_popularity", "seasonal_popularity")
SAME_IN_DISCOVER = ("personal_repeat", "repeat_trend")  # what they know of a user is left out there
FEWEST_USERS = 30  # of fewer nothing is asked
PROOF = 1.1  # times the holdout NDCG of the best that knows no user: from there on lists must fit their users


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


@dataclass(frozen=True)
class Measured:
    """A figure of the lists, with its standard error; None where there was nothing to measure."""

    name: str
    value: float | None
    error: float
    users: int  # of whom it is a mean


@dataclass(frozen=True)
class Limit:
    """A figure of the lists and the least that is asked of it; None = not asked."""

    measured: Measured
    least: float | None
    basis: str  # where `least` is from

    @property
    def is_kept(self) -> bool:
        """Not below `least` beyond noise: with a one-sided 90 % interval."""
        value, error = self.measured.value, self.measured.error
        return value is None or self.least is None or value + ONE_SIDED_90 * error >= self.least


def knows_users(ranker: str, list_name: str) -> bool:
    """Whether lists differ between users by more than by what is left out of them."""
    return ranker not in SAME_FOR_ALL and not (list_name == "discover" and ranker in SAME_IN_DISCOVER)


def pays(ranker: str, list_name: str, ndcg: Mapping[str, float]) -> bool:
    """Whether the holdouts say that it pays to know the users. ndcg: ranker → NDCG pooled over them."""
    rivals = [value for name, value in ndcg.items() if not knows_users(name, list_name)]
    return knows_users(ranker, list_name) and ndcg.get(ranker, 0.0) > PROOF * max(rivals, default=0.0)


def limits(
    list_name: str,
    ranker: str,
    figures: Sequence[Measured],
    earlier: Mapping[str, Sequence[tuple[str, float]]],
    last_ranker: str | None,
    floors: Mapping[str, float],
    max_drop: float,
    is_proven: bool,
) -> Iterator[Limit]:
    """What is asked of each figure: the floor, or what `max_drop` leaves of the median of earlier publications if that is more.

    A max_drop of 1 asks nothing of the median.

    earlier: name → ranker and value of each of the last publications; last_ranker: of the newest. floors: those of the source,
    which hold always; those of `FLOORS` hold where they can be asked of the ranker.
    """
    support = next((figure.value for figure in figures if figure.name == "support"), None)
    has_support = support is not None and support >= FLOORS["support"]
    for figure in figures:
        if figure.users < FEWEST_USERS:
            yield Limit(figure, None, "")
            continue
        name = figure.name.split()[0].split("@")[0]
        is_asked = {
            "support": is_proven,
            "support_of_new": is_proven,
            "popularity": not is_proven and not has_support,
        }.get(name, True)
        if name in FOLLOWING and ranker != last_ranker:
            is_asked = False
        floor = floors.get(name, FLOORS.get(name) if is_asked else None)
        past = [value for by, value in earlier.get(figure.name, ()) if by == ranker or name not in PERSONAL]
        if name == "ndcg" or (name in PERSONAL and is_asked and knows_users(ranker, list_name)):
            drop = min(max_drop, MOST_DROP.get(name, 1.0)) if max_drop < 1 else 1.0
            least = (1 - drop) * median(past) if past else 0.0
            if least > max(floor or 0.0, 0.0):
                yield Limit(figure, least, f"{1 - drop:.0%} of the median of the last publications")
                continue
        yield Limit(figure, floor, "the floor")

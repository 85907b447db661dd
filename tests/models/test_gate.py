"""The gate, on evaluations made by hand."""

from __future__ import annotations

import pytest
import torch

from models.evaluation import Evaluation
from models.gate import decide
from models.metrics import paired_difference
from models.settings import ModelSettings
from tests.models.tiny import AS_OF

USERS = 50
NOISE = torch.linspace(-0.05, 0.05, USERS)


def evaluation(**means: float) -> Evaluation:
    """Each ranker's NDCG of 50 users: the mean, and noise that every second ranker has the other way round."""
    ndcg = {name: mean + NOISE * (-1) ** position for position, (name, mean) in enumerate(means.items())}
    users = torch.arange(USERS)
    return Evaluation(
        20, True, (AS_OF,), (), {"for_you": users}, {"for_you": ndcg}, ModelSettings(), 1, 1.0, {"for_you": {}}
    )


def test_the_model_is_published_when_nothing_beats_it() -> None:
    decision = decide(evaluation(almanac=0.3, ease=0.2), "for_you", None)
    assert (decision.ranker, decision.blocked_by) == ("almanac", None)
    assert decision.difference == pytest.approx(-0.1)


def test_a_baseline_that_is_better_beyond_noise_blocks_the_model_and_takes_its_place() -> None:
    decision = decide(evaluation(almanac=0.2, ease=0.3, popularity=0.25), "for_you", "almanac")
    assert (decision.ranker, decision.blocked_by) == ("ease", "ease")
    assert decision.lower_bound is not None
    assert decision.lower_bound > 0
    assert "ease" in decision.why


def test_a_baseline_that_is_better_within_noise_does_not_block() -> None:
    assert decide(evaluation(almanac=0.3, ease=0.305), "for_you", None).ranker == "almanac"


@pytest.mark.parametrize("incumbent", ["ease", "almanac"])
def test_within_noise_the_incumbent_stays(incumbent: str) -> None:
    assert decide(evaluation(almanac=0.3, ease=0.299), "for_you", incumbent).ranker == incumbent


def test_a_model_better_beyond_noise_replaces_the_incumbent() -> None:
    assert decide(evaluation(almanac=0.4, ease=0.3), "for_you", "ease").ranker == "almanac"


def test_an_incumbent_baseline_stays_beside_an_equal_blocker() -> None:
    decision = decide(evaluation(almanac=0.1, ease=0.3, item_knn=0.299), "for_you", "item_knn")
    assert (decision.ranker, decision.blocked_by) == ("item_knn", "ease")


def test_an_incumbent_nobody_measured_does_not_stay() -> None:
    assert decide(evaluation(almanac=0.3, ease=0.3), "for_you", "retired_model").ranker == "almanac"


@pytest.mark.parametrize(("name", "fallback"), [("for_you", "repeat_trend"), ("discover", "decayed_popularity")])
def test_without_a_holdout_a_fallback_is_published_and_says_so(name: str, fallback: str) -> None:
    decision = decide(Evaluation(20, True, (), (), {}, {}, ModelSettings(), 1, 1.0, {}), name, "almanac")
    assert (decision.ranker, decision.difference) == (fallback, None)
    assert "nothing to judge" in decision.why


def test_the_interval_by_hand() -> None:
    """Differences 1, 2, 3 of three users: mean 2, standard error 1/√3."""
    one, users = torch.tensor([1.0, 2.0, 3.0]), torch.arange(3)
    mean, lower = paired_difference(one, torch.zeros(3), users)
    assert (mean, lower) == pytest.approx((2, 2 - 1.2816 / 3**0.5))


def test_the_same_users_again_are_no_new_evidence() -> None:
    one, users = torch.randn(40), torch.arange(40)
    once = paired_difference(one, torch.zeros(40), users)
    fourfold = paired_difference(one.repeat(4), torch.zeros(160), users.repeat(4))
    assert fourfold == pytest.approx(once)


def test_one_user_proves_nothing() -> None:
    assert paired_difference(torch.ones(4), torch.zeros(4), torch.zeros(4, dtype=torch.int64))[1] == -float("inf")

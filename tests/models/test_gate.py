"""The gate, on evaluations made by hand."""

from __future__ import annotations

import pytest
import torch

from models.evaluation import Evaluation
from models.gate import Measured, decide, knows_users, limits, pays
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


def asked(
    *figures: Measured,
    ranker: str = "almanac",
    earlier: dict[str, list[tuple[str, float]]] | None = None,
    floors: dict[str, float] | None = None,
    last_ranker: str | None = "almanac",
    max_drop: float = 0.5,
    is_proven: bool = True,
    list_name: str = "discover",
) -> dict[str, tuple[float | None, bool]]:
    """By figure what is asked, and whether it is kept."""
    found = limits(list_name, ranker, figures, earlier or {}, last_ranker, floors or {}, max_drop, is_proven)
    return {limit.measured.name: (limit.least, limit.is_kept) for limit in found}


def figure(name: str, value: float | None, error: float = 0.0, users: int = 100) -> Measured:
    return Measured(name, value, error, users)


def test_half_of_the_median_of_earlier_publications_is_asked() -> None:
    earlier = {"coverage": [("almanac", 0.1), ("almanac", 0.4), ("almanac", 0.3)]}
    assert asked(figure("coverage", 0.16), earlier=earlier) == {"coverage": (0.15, True)}
    assert asked(figure("coverage", 0.14), earlier=earlier) == {"coverage": (0.15, False)}


def test_of_recognised_users_hardly_any_may_be_lost() -> None:
    name = "recognised after 1 days"
    earlier = {name: [("almanac", 0.8)]}
    assert asked(figure(name, 0.71), earlier=earlier) == {name: (pytest.approx(0.72), False)}
    assert asked(figure(name, 0.73), earlier=earlier) == {name: (pytest.approx(0.72), True)}
    assert asked(figure(name, 0.75), earlier=earlier, max_drop=0.05) == {name: (pytest.approx(0.76), False)}
    assert asked(figure(name, 0.1), earlier=earlier, max_drop=1) == {name: (None, True)}


def test_below_a_limit_by_less_than_the_noise_is_kept() -> None:
    earlier = {"ndcg@20": [("ease", 0.4)]}
    assert asked(figure("ndcg@20", 0.16, error=0.04), earlier=earlier) == {"ndcg@20": (0.2, True)}
    assert asked(figure("ndcg@20", 0.16, error=0.03), earlier=earlier) == {"ndcg@20": (0.2, False)}


def test_the_floor_counts_where_it_asks_for_more() -> None:
    earlier = {"ndcg@20": [("almanac", 0.4)]}
    assert asked(figure("ndcg@20", 0.25), earlier=earlier, floors={"ndcg": 0.3}) == {"ndcg@20": (0.3, False)}


def test_a_floor_of_nothing_and_any_drop_turn_a_limit_off() -> None:
    assert asked(figure("order", 0.1), floors={"order": -1.0}) == {"order": (-1.0, True)}
    assert asked(figure("support", -0.2), floors={"support": -1.0}) == {"support": (-1.0, True)}
    assert asked(figure("coverage", 0.1), earlier={"coverage": [("almanac", 0.9)]}, max_drop=1) == {
        "coverage": (None, True)
    }


def test_lists_of_another_ranker_are_no_measure_but_its_ndcg_is() -> None:
    earlier = {name: [("ease", 0.8)] for name in ("coverage", "support", "ndcg@20")}
    figures = [figure(name, 0.3) for name in earlier]
    assert asked(*figures, earlier=earlier) == {
        "coverage": (None, True),
        "support": (0.1, True),
        "ndcg@20": (0.4, False),
    }


def test_nothing_personal_is_asked_of_a_ranker_that_knows_no_user() -> None:
    earlier = {
        name: [("repeat_trend", 0.8)]
        for name in ("coverage", "spread", "overlap after 1 days", "recognised after 1 days")
    }
    figures = [figure(name, 0.01) for name in ("support", *earlier)]
    found = asked(*figures, ranker="repeat_trend", earlier=earlier, is_proven=False, last_ranker="repeat_trend")
    assert all(least is None for least, _ in found.values())
    found = asked(*figures, ranker="repeat_trend", earlier=earlier, last_ranker="repeat_trend", list_name="for_you")
    assert [is_kept for _, is_kept in found.values()] == [False] * 5


def test_without_proof_lists_must_be_personal_or_popular() -> None:
    for support, popularity, is_kept in ((0.5, 0.0, True), (0.0, 0.5, True), (0.0, 0.0, False)):
        found = asked(figure("support", support), figure("popularity", popularity), is_proven=False)
        assert all(kept for _, kept in found.values()) is is_kept


def test_with_proof_popular_lists_are_not_enough() -> None:
    found = asked(figure("support", 0.0), figure("popularity", 0.5))
    assert found == {"support": (0.1, False), "popularity": (None, True)}


def test_after_a_change_of_ranker_nothing_need_follow_the_last_publication() -> None:
    figures = [
        figure(name, -0.5) for name in ("overlap after 7 days", "recognised after 7 days", "first_kept", "agreement")
    ]
    assert all(kept for _, kept in asked(*figures, last_ranker="ease").values())
    assert not asked(*figures)["agreement"][1]


def test_of_few_users_and_of_nothing_measured_nothing_is_asked() -> None:
    assert asked(figure("order", 0.0, users=29)) == {"order": (None, True)}
    assert asked(figure("order", None)) == {"order": (0.5, True)}


@pytest.mark.parametrize(
    ("ndcg", "answer"),
    [
        ({"almanac": 0.23, "ease": 0.4, "popularity": 0.2}, True),
        ({"almanac": 0.21, "ease": 0.1, "popularity": 0.2}, False),
        ({"almanac": 0.1}, True),
        ({}, False),
    ],
)
def test_knowing_the_users_pays_from_a_tenth_above_popularity(ndcg: dict[str, float], answer: bool) -> None:
    assert pays("almanac", "discover", ndcg) is answer


def test_repeats_know_their_user_only_where_repeats_are_shown() -> None:
    assert knows_users("personal_repeat", "for_you")
    assert not knows_users("personal_repeat", "discover")
    assert not knows_users("decayed_popularity", "for_you")

"""Holdouts: honest choices, honest truth, and what happens where history is short."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
import torch

from models import evaluation
from models.evaluation import CALIBRATED, RERANKED, Option, Trials, evaluate
from models.gate import decide
from models.graph import Graph
from models.network import Network
from models.settings import MODEL, ModelSettings
from tests.models.tiny import AS_OF, edges, tiny_graph, with_items_known

SETTINGS = ModelSettings(dimension=4, epochs=2)


def shop(days: int) -> Graph:
    dice = random.Random(2)
    return tiny_graph(
        {(user, dice.randrange(12), dice.randint(1, days)) for user in range(25) for _ in range(days // 2)}
        | {(0, 0, days)}
    )


def test_four_weeks_are_held_out_back_to_back_and_every_ranker_is_judged_on_the_same_users() -> None:
    evaluation = evaluate(shop(100), 7, True, SETTINGS)
    assert evaluation.holdout_dates == tuple(AS_OF - timedelta(days=days) for days in (28, 21, 14, 7))
    for name, rankers in evaluation.user_ndcg.items():
        assert MODEL in rankers
        assert len(rankers) == 7
        assert {len(values) for values in rankers.values()} == {len(evaluation.user_index[name])}
    assert evaluation.epochs in (1, 2)
    assert {row.metric for row in evaluation.rows} == {
        "recall",
        "precision",
        "hit_rate",
        "mrr",
        "map",
        "ndcg",
        "coverage",
    }
    assert all(0 <= row.value <= 1 for row in evaluation.rows)


@pytest.mark.parametrize(("days", "holdouts"), [(5, 0), (14, 0), (15, 1), (22, 2), (29, 3), (36, 4)])
def test_a_short_history_is_held_out_as_often_as_it_allows(days: int, holdouts: int) -> None:
    evaluation = evaluate(shop(days), 7, True, SETTINGS)
    assert len(evaluation.holdout_dates) == holdouts
    for name in ("for_you", "discover"):
        assert (decide(evaluation, name, None).lower_bound is None) == (holdouts == 0)


def test_a_shop_without_events_has_no_holdout() -> None:
    assert evaluate(tiny_graph([], users=3, items=2), 7, True, SETTINGS).holdout_dates == ()


def test_evaluation_leaves_events_of_the_last_horizon_to_the_last_holdout(monkeypatch) -> None:
    """The first holdout's figures do not change when everything after it does."""
    graph = shop(100)
    keep = graph.interactions.age_days > 21
    later_gone = tiny_graph(
        list(
            zip(
                graph.interactions.user_index[keep].tolist(),
                graph.interactions.item_index[keep].tolist(),
                graph.interactions.age_days[keep].tolist(),
                strict=True,
            )
        ),
        users=graph.user_count,
        items=graph.item_count,
    )
    single = SETTINGS.model_copy(update={"epochs": 1})
    monkeypatch.setattr(evaluation, "TASTE_SHARES", (1.0,))  # nothing to choose on the other holdouts
    monkeypatch.setattr(evaluation, "_calibrate", lambda *_: {})
    monkeypatch.setattr(evaluation, "_rerank", lambda *_: {})
    first = [
        sorted(
            (row.list_name, row.metric, row.value)
            for row in evaluate(it, 7, True, single).rows
            if row.holdout_date == AS_OF - timedelta(days=28) and row.ranker == MODEL
        )
        for it in (graph, later_gone)
    ]
    assert first[0]
    assert first[0] == first[1]


def test_where_repeats_are_off_both_lists_are_judged_on_new_items() -> None:
    evaluation = evaluate(shop(60), 7, False, SETTINGS)
    assert torch.equal(evaluation.user_index["for_you"], evaluation.user_index["discover"])
    for ranker in ("popularity", "ease"):
        one, other = (evaluation.user_ndcg[name][ranker] for name in ("for_you", "discover"))
        assert torch.equal(one, other)


def test_where_everybody_has_everything_only_the_list_with_repeats_is_judged() -> None:
    graph = tiny_graph([(user, item, age) for user in range(5) for item in range(3) for age in (1, 8, 15, 22, 29, 50)])
    evaluation = evaluate(graph, 7, True, SETTINGS, k=2)
    assert {row.list_name for row in evaluation.rows} == {"for_you"}
    assert decide(evaluation, "for_you", None).difference is not None
    assert decide(evaluation, "discover", None).ranker == "decayed_popularity"


def test_a_holdout_is_measured_with_the_option_that_the_other_holdouts_choose() -> None:
    trials = Trials()
    for option, ndcg in {10.0: (0.9, 0.1, 0.1), 20.0: (0.0, 0.3, 0.3)}.items():
        for value in ndcg:
            trials.add(option, "for_you", {"ndcg": torch.tensor([value])})
    assert [trials.best(("for_you",), evaluation.others_of(number, 3)) for number in range(3)] == [20.0, 10.0, 10.0]
    assert evaluation.others_of(0, 1) == [0]
    assert trials.best(("for_you",), [0, 1, 2]) == 10.0


def test_the_network_has_one_epoch_for_both_lists_and_a_finish_for_each() -> None:
    """Epoch 1 is best for no list by itself; together, each finished as suits it, the lists want it."""
    trials = Trials()
    measured = {(1, 1.0): (0.4, 0.1), (1, 0.5): (0.1, 0.4), (2, 1.0): (0.5, 0.0), (3, 0.5): (0.0, 0.5)}
    for option, values in measured.items():
        for list_name, value in zip(("for_you", "discover"), values, strict=True):
            trials.add(option, list_name, {"ndcg": torch.tensor([value])})
    assert trials.best_epoch(("for_you", "discover"), [0]) == (1, {"for_you": 1.0, "discover": 0.5})
    assert trials.best_epoch(("discover",), [0]) == (3, {"discover": 0.5})


@pytest.mark.parametrize(
    ("reranked", "finish"), [((0.9, 0.1, 0.1, 0.3), 0.5), ((0.9, 0.1, 0.3, 0.3), RERANKED), ((0.25,) * 4, RERANKED)]
)
def test_a_second_stage_must_be_better_on_most_holdouts(reranked: tuple[float, ...], finish: Option) -> None:
    """An unusual holdout makes it the best on average each time; in the first case it wins two of four only."""
    trials = Trials()
    for option, values in (((1, 0.5), (0.2,) * 4), ((1, CALIBRATED), (0.1,) * 4), ((1, RERANKED), reranked)):
        for value in values:
            trials.add(option, "for_you", {"ndcg": torch.full((10,), value)})
    assert trials.best_epoch(("for_you",), [0, 1, 2, 3]) == (1, {"for_you": finish})


def test_what_was_launched_during_the_horizon_is_not_asked_of_a_list_made_before() -> None:
    """Only user 1 buys something known: the others buy item 2, which nobody could list."""
    before = [(user, item, age) for user in range(4) for item in (0, 1) for age in (30, 36)]
    graph = tiny_graph([*before, (0, 2, 3), (2, 2, 3), (3, 2, 3), (1, 1, 4)])
    evaluation = evaluate(graph, 7, True, SETTINGS)
    assert evaluation.user_index["for_you"].tolist() == [1]


def test_progress_ends_at_its_total() -> None:
    seen = []
    evaluate(shop(40), 7, True, SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))


def with_facts() -> Graph:
    """Even users take to even items, odd ones to odd items, and an item's fact says its parity."""
    dice = random.Random(3)
    events = {(u, 2 * dice.randrange(30) + u % 2, dice.randint(1, 70)) for u in range(60) for _ in range(10)}
    facts = edges([(item, item % 2) for item in range(60)])
    return with_items_known(tiny_graph(events, items=60, item_entities=facts))


def test_facts_are_left_out_only_where_holdouts_are_better_without_beyond_noise(monkeypatch) -> None:
    settings = ModelSettings(dimension=8, epochs=3, neighbour_count=0, phase=False)
    assert evaluate(with_facts(), 7, True, settings).settings.facts
    monkeypatch.setattr(Trials, "is_better", lambda *_: True)
    without = evaluate(with_facts(), 7, True, settings)
    assert not without.settings.facts and without.settings.friends, "there are no friends to leave out"


def test_an_option_is_better_only_beyond_noise() -> None:
    trials, users = Trials(), [{"for_you": torch.arange(40)}]
    for option, gain in {"same": 0.0, "better": 0.1, "noise": 0.01}.items():
        noise = torch.randn(40, generator=torch.Generator().manual_seed(1)) * (option == "noise")
        trials.add(option, "for_you", {"ndcg": torch.full((40,), 0.3) + gain + noise})
    judged = {option: trials.is_better(option, "same", ("for_you",), users) for option in ("same", "better", "noise")}
    assert judged == {"same": False, "better": True, "noise": False}


def test_training_ends_when_more_passes_only_make_it_worse(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(evaluation, "metrics", lambda *_: {"ndcg": torch.tensor([1.0 / (1 + len(made))])})
    monkeypatch.setattr(evaluation, "TASTE_SHARES", (1.0,))
    real = evaluation.fit

    def counted(*args, on_epoch, **options):
        def noted(epoch: int, network: Network) -> bool:
            made.append(epoch)
            return on_epoch(epoch, network)

        return real(*args, on_epoch=noted, **options)

    monkeypatch.setattr(evaluation, "fit", counted)
    assert evaluate(shop(60), 7, True, ModelSettings(dimension=4, epochs=6), baselines=()).epochs == 1
    assert made == [1, 2, 3]

"""The second stage: what it reads, what it learns, and where its order stands in the scores."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from math import log, log1p

import pytest
import torch
from torch import Tensor

from models.artifact import pack, unpack
from models.evaluation import RERANKED, Holdout, evaluate
from models.evaluation import lesson as evaluation_lesson
from models.graph import Graph
from models.hops import Hop
from models.metrics import ndcg
from models.neighbours import Neighbours, ease_weights, knn_weights
from models.network import LISTS, RERANKER, SHARE, Network, told
from models.network_ranker import RERANKER_HORIZONS, NetworkRanker
from models.pairs import FRESH, HALF_LIVES, history_columns, traits
from models.reranker import CANDIDATES, CANDIDATES_BY_FILTER, Candidates, Lesson, Reranker, fit_reranker
from models.settings import ModelSettings
from models.timeline import Timeline
from models.training import fit
from tests.models.tiny import tiny_graph, two_tastes, with_items_known

SETTINGS = ModelSettings(dimension=16, epochs=2)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return two_tastes(users=40, items_each=90)


@pytest.fixture(scope="module")
def network(graph: Graph) -> Network:
    return fit(graph, 7, SETTINGS, epochs=SETTINGS.epochs)


def lesson(users: int, seed: int) -> Lesson:
    """Thirty candidates each; those with the two highest values of the second of three features follow."""
    dice = torch.Generator().manual_seed(seed)
    features = torch.randn(users, 30, 3, generator=dice)
    first = torch.randn(users, 30, generator=dice)
    hit = torch.zeros(users, 30, dtype=torch.bool).scatter_(1, features[..., 1].topk(2).indices, True)
    return Lesson(Candidates(torch.arange(30).repeat(users, 1), first, features), hit)


def found_share(scores: Tensor, hit: Tensor) -> float:
    """NDCG@2 of the order by score."""
    return float(ndcg(hit.gather(1, scores.topk(2).indices), hit.sum(1)).mean())


def random_reranker(network: Network, graph: Graph, list_name: str) -> dict[str, object]:
    """Values of a second stage that prefers at random."""
    features = NetworkRanker(network, graph).candidates(torch.arange(3), list_name).features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        reranker = Reranker(features.shape[-1])
        for parameter in reranker.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    reranker.mean.copy_(features.flatten(0, 1).mean(0))
    reranker.scale.copy_(features.flatten(0, 1).std(0).clamp(min=1e-3).reciprocal())
    return reranker.values()


def test_what_decides_is_learned_and_what_does_not_is_left_alone() -> None:
    reranker, other = fit_reranker([lesson(400, seed) for seed in range(2)], seed=0), lesson(200, 2)
    given = other.candidates
    again = reranker(given.first, reranker.standardised(given.features))
    assert found_share(given.first, other.hit) < 0.15
    assert found_share(again, other.hit) > 0.7


def test_without_anything_to_learn_the_first_stage_stays() -> None:
    given = lesson(50, 0)
    nothing = replace(given, hit=torch.zeros_like(given.hit))
    reranker = fit_reranker([nothing], seed=0)
    features = reranker.standardised(given.candidates.features)
    assert torch.equal(reranker(given.candidates.first, features), given.candidates.first)


def test_the_same_lessons_give_the_same_bits_and_plain_values_keep_them() -> None:
    one, other = (fit_reranker([lesson(60, 0)], seed=3) for _ in range(2))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    again = Reranker.of(json.loads(json.dumps(one.values())))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_feature_that_never_differed_counts_nothing_when_it_does() -> None:
    given = lesson(60, 0)
    given.candidates.features[..., 2] = 7.0
    reranker = fit_reranker([given], seed=0)
    features = given.candidates.features.clone()
    features[..., 2] = 1e6
    same, changed = (reranker.standardised(each) for each in (given.candidates.features, features))
    assert torch.equal(same, changed)


def test_own_events_are_told_by_number_age_rhythm_visit_and_memory() -> None:
    """User 0 had item 0 thirty, twenty and four days ago, viewed and bought on the last, and item 1 ten days ago."""
    events = [(0, 0, 30, 1), (0, 0, 20, 1), (0, 0, 4, 0), (0, 0, 4, 1), (0, 1, 10, 1), (1, 1, 1, 1)]
    graph = with_items_known(tiny_graph(events, items=3, event_types=("view", "purchase")))
    graph.interactions.strength[graph.interactions.event_type_index == 0] = 0.25
    snapshot = Timeline(graph, 7, SETTINGS).at(0, torch.arange(2))
    row, item = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 1])
    repeats, known = torch.arange(1.0, 1 + len(snapshot.history.pair_row)), traits(graph, 7, timed=True)
    columns = history_columns(snapshot, row, item, repeats, known, 7, timed=True)
    assert {part for part, _ in columns} == {"repeat"}
    seen, days, several, first, age, in_last_visit, overdue, *memories = (column for _, column in columns)
    assert seen.tolist() == [1, 1, 0, 1]
    assert days.tolist() == pytest.approx([log(3), 0, 0, 0])
    assert several.tolist() == [1, 0, 0, 0]
    assert first.tolist() == [1, 2, 0, 3]
    assert age.tolist() == pytest.approx([log1p(4 / 7), log1p(10 / 7), 0, log1p(1 / 7)])
    assert in_last_visit.tolist() == [1, 0, 0, 1]
    assert overdue.tolist() == pytest.approx([log(5 / 14), 0, 0, 0])
    for half_life, memory in zip(HALF_LIVES, memories[: len(HALF_LIVES)], strict=True):
        counted = [(1, 30), (1, 20), (1.25, 4)], [(1, 10)], [], [(1, 1)]
        expected = [
            log1p(FRESH * sum(strength * 2 ** (-days / 7 / half_life) for strength, days in one)) for one in counted
        ]
        assert memory.tolist() == pytest.approx(expected, rel=1e-5)
    item_repeats, user_repeats, breadth = memories[len(HALF_LIVES) :]
    assert item_repeats.tolist() == pytest.approx(
        [*known.item_repeats[[0, 1]].tolist(), 0, float(known.item_repeats[1])]
    )
    assert user_repeats.tolist() == pytest.approx(
        [*[float(known.user_repeats[0])] * 2, 0, float(known.user_repeats[1])]
    )
    assert breadth.tolist() == pytest.approx([*[float(known.user_breadth[0])] * 2, 0, float(known.user_breadth[1])])


def test_who_repeats_and_what_is_repeated_is_known_by_days() -> None:
    """User 0 and item 0 repeat; two types of one day are no repeat."""
    events = [(0, 0, 30, 1), (0, 0, 9, 1), (0, 1, 5, 0), (0, 1, 5, 1), (1, 1, 5, 1), (1, 2, 3, 1)]
    known = traits(tiny_graph(events, event_types=("view", "purchase")), 7, timed=True)
    usual = 1 / 4
    assert known.item_repeats.tolist() == pytest.approx(
        [log((1 + 20 * usual) / 21 / usual), *[log(20 * usual / (n + 20) / usual) for n in (2, 1)]]
    )
    assert known.user_repeats.tolist() == pytest.approx([log((1 + 5 * usual) / 7 / usual), log(5 * usual / 7 / usual)])
    assert known.item_popularity.tolist() == pytest.approx(
        [log(2) - known_mean(), log(3) - known_mean(), log(2) - known_mean()]
    )


def known_mean() -> float:
    return (2 * log(2) + log(3)) / 3


def test_without_decay_nothing_that_is_read_depends_on_when() -> None:
    events = [(user, item, 1 + 7 * user + 3 * item) for user in range(6) for item in range(user, 9)]
    stretched = [(user, item, 2 * age) for user, item, age in events]
    read = []
    for each in (events, stretched):
        graph = with_items_known(tiny_graph(each, users=6, items=9))
        settings = ModelSettings(dimension=4, decay=False, phase=False, taste=False)
        network = Network(9, 0, ("purchase",), 7, source_count=3, trend_count=1, settings=settings)
        read.append(NetworkRanker(network, graph).candidates(torch.arange(6), "for_you"))
    assert torch.equal(read[0].item, read[1].item)
    assert torch.allclose(read[0].features, read[1].features)


@pytest.mark.parametrize("kind", ["matrix", "neighbours"])
def test_the_second_stage_reads_the_filter_on_histories_of_three_half_lives(
    graph: Graph, network: Network, kind: str
) -> None:
    weights: Tensor | Hop = ease_weights(graph, 50.0) if kind == "matrix" else knn_weights(graph, 50.0, 10)
    users = torch.tensor([0, 3, 4, 39])
    found = NetworkRanker(network, graph, item_filter=weights).candidates(users, "for_you")
    for place, horizons in enumerate(RERANKER_HORIZONS, start=1):
        whole = Neighbours("filter", graph, horizons * network.horizon_days, weights).scores(users, "for_you")
        assert torch.equal(found.features[..., place], whole.gather(1, found.item))


@pytest.mark.parametrize("items", [100, 180])
@pytest.mark.parametrize("list_name", LISTS)
def test_no_item_is_offered_twice_or_where_it_cannot_be_listed(
    graph: Graph, network: Network, list_name: str, items: int
) -> None:
    retired = torch.where(torch.arange(graph.item_count) < items, graph.item_retired_age_days, 5)
    users, now = torch.arange(graph.user_count), replace(graph, item_retired_age_days=retired.int())
    found = NetworkRanker(network, now).candidates(users, list_name)
    events, offered = graph.interactions, found.first > -torch.inf
    seen = torch.zeros(len(users), graph.item_count, dtype=torch.bool)
    seen[events.user_index, events.item_index] = True
    listable = now.live_items.expand_as(seen) & ~(seen if list_name == "discover" else torch.zeros_like(seen))
    count = torch.zeros_like(seen).int().scatter_add_(1, found.item, offered.int())
    assert count.max() == 1
    assert not (count.bool() & ~listable).any()
    assert torch.equal(count.sum(1), listable.sum(1).clamp(max=CANDIDATES))


def test_the_filter_offers_what_the_first_stage_leaves(graph: Graph, network: Network) -> None:
    users, ranker = torch.arange(graph.user_count), NetworkRanker(network, graph)
    found, scores = ranker.candidates(users, "for_you"), ranker.scores(users, "for_you")
    own = CANDIDATES - CANDIDATES_BY_FILTER
    assert torch.equal(found.first[:, :own], scores.topk(own).values)
    left = ranker.filtered(users).scatter_(1, found.item[:, :own], -torch.inf)
    assert torch.allclose(left.gather(1, found.item[:, own:]), left.topk(CANDIDATES_BY_FILTER).values)


@pytest.mark.parametrize("list_name", LISTS)
def test_candidates_come_first_in_the_order_of_the_second_stage(graph: Graph, network: Network, list_name: str) -> None:
    users = torch.arange(graph.user_count)
    values = random_reranker(network, graph, list_name)
    finished = network.finished({list_name: {SHARE: 1.0, RERANKER: values}})
    first, both = NetworkRanker(network, graph), NetworkRanker(finished, graph)
    found, before, scores = (
        first.candidates(users, list_name),
        first.scores(users, list_name),
        both.scores(users, list_name),
    )
    reranker = Reranker.of(values)
    again = reranker(found.first, reranker.standardised(found.features))
    assert torch.equal(scores.gather(1, found.item), again)
    assert not torch.equal(again.argsort(1), found.first.argsort(1))
    others = torch.ones_like(scores, dtype=torch.bool).scatter_(1, found.item, False)
    for user in users.tolist():
        mine = others[user]
        assert torch.equal(scores[user, mine].argsort(stable=True), before[user, mine].argsort(stable=True))
        assert scores[user, mine].max() <= again[user].min()


def test_a_reranked_network_survives_its_artifact(graph: Graph, network: Network) -> None:
    finish = {"for_you": {SHARE: 0.5, RERANKER: random_reranker(network, graph, "for_you")}}
    finished, users = network.finished(json.loads(json.dumps(finish))), torch.arange(graph.user_count)
    again = unpack(pack(finished))
    halved = NetworkRanker(network.with_taste(0.5), graph).candidates(users, "for_you")
    assert torch.equal(NetworkRanker(again, graph).candidates(users, "for_you").features, halved.features)
    for name in LISTS:
        scores = [NetworkRanker(each, graph).scores(users, name) for each in (finished, again)]
        assert torch.equal(*scores)
    assert told(finish | {"discover": 0.7}) == {"for_you": "reranked", "discover": 0.7}


def test_the_reason_is_what_the_second_stage_lifts(graph: Graph, network: Network) -> None:
    """One that counts nothing but how often the user bought the item makes repeats of them."""
    values = random_reranker(network, graph, "for_you")
    reranker = Reranker.of(values)
    first, snapshot = NetworkRanker(network, graph), Timeline(graph, 7, SETTINGS).at(0, torch.arange(1))
    pair, filtered = torch.zeros(1, dtype=torch.int64), first.filtered_by(snapshot.users)
    parts = [part for part, _ in first.columns(snapshot, filtered, pair, pair, 0)]
    with torch.no_grad():
        reranker.last.weight.zero_()
        reranker.direct.weight.zero_()
        reranker.direct.weight[0, parts.index("repeat")] = 50.0  # whether the user has any event with the item
    ranker = NetworkRanker(network.finished({"for_you": {SHARE: 1.0, RERANKER: reranker.values()}}), graph)
    events = graph.interactions
    own = torch.unique(events.user_index * graph.item_count + events.item_index)
    reasons, item, _ = ranker.explain(own // graph.item_count, own % graph.item_count, "for_you")
    assert set(reasons) == {"repeat"}
    assert torch.equal(item, own % graph.item_count)


def test_the_holdouts_choose_it_where_a_rhythm_decides_what_the_first_stage_cannot_say() -> None:
    """Everybody buys each own item every four weeks, so that of longest ago comes next; a decay says the opposite."""
    dice = random.Random(3)
    events = set()
    for user in range(120):
        for item in dice.sample(range(60), 4):
            start = dice.randint(1, 28)
            events |= {(user, item, age) for age in range(start, 300, 28)}
    graph = with_items_known(tiny_graph(events, users=120, items=60))
    judged = evaluate(graph, 7, True, ModelSettings(dimension=8, epochs=1), baselines=())
    assert RERANKER in judged.finishes["for_you"]  # pyright: ignore[reportOperatorIssue]
    plain = evaluate(graph, 7, True, ModelSettings(dimension=8, epochs=1, reranker=False), baselines=())
    gain = judged.user_ndcg["for_you"]["almanac"].mean() - plain.user_ndcg["for_you"]["almanac"].mean()
    assert gain > 0.1, told(judged.finishes)
    assert RERANKED not in told(plain.finishes).values()


def test_a_single_holdout_is_too_little_to_learn_it_from(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("models.evaluation.fit_reranker", lambda *given: calls.append(given) or fit_reranker(*given))
    assert len(evaluate(graph, 40, True, SETTINGS, baselines=()).holdout_dates) == 1
    assert not calls
    assert len(evaluate(graph, 30, True, SETTINGS, baselines=()).holdout_dates) == 2
    assert len(calls) == 6  # on each of the two, and on both, for two lists


def test_each_holdout_is_judged_by_what_the_others_taught(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[list[object]] = []
    days: dict[int, object] = {}

    def remembered(ranker: NetworkRanker, holdout: Holdout, list_name: str) -> Lesson:
        made = evaluation_lesson(ranker, holdout, list_name)
        days[id(made)] = holdout.graph.as_of
        return made

    def recorded(lessons: Sequence[Lesson], seed: int) -> Reranker:
        taught.append([days[id(one)] for one in lessons])
        return fit_reranker(lessons, seed)

    monkeypatch.setattr("models.evaluation.lesson", remembered)
    monkeypatch.setattr("models.evaluation.fit_reranker", recorded)
    dates = evaluate(graph, 7, True, SETTINGS, baselines=()).holdout_dates
    assert len(dates) == 4
    expected = [[other for other in dates if other != date] for date in dates] + [list(dates)]
    assert taught == [one for one in expected for _ in LISTS]

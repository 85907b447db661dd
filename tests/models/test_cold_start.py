"""Who has just come: content, the start that is learned, the steps from it, and the lists of new users and items."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

import pytest
import torch

from models.baselines import popularity_scores
from models.graph import Graph, Interactions
from models.networks.adaptation import Adaptation, Episode, Pairs, later_loss, meta_learn
from models.networks.content import contents, fit_content
from models.networks.newcomers import MOST_EVENTS, fit_adapted, pretend
from models.networks.training import fit_network
from models.ranking import Ranker
from models.settings import ModelSettings
from tests.models.canary import HORIZON_DAYS, assert_blind_to_the_future, assert_same_bits_twice, shop
from tests.models.tiny import edges, tiny_graph, with_items_known

SMALL = {"name": "lightgcn_ahead", "dimension": 16, "layers": 2, "epochs": 2, "dates": 4}
ROUNDS = 12
SETTINGS = ModelSettings()


def content(graph: Graph, temperature: float = 0.12) -> Ranker:
    return fit_content(graph, HORIZON_DAYS, SETTINGS, inf, temperature)(graph)


def test_content_is_blind_to_the_future() -> None:
    assert_blind_to_the_future(partial(fit_content))


def test_an_item_nobody_has_is_found_by_its_facts() -> None:
    graph = tiny_graph(
        [(0, 0, 5), (1, 1, 5), (2, 1, 5)], items=4, item_entities=edges([(0, 0), (1, 1), (2, 0), (3, 1)])
    )
    scores = content(with_items_known(graph)).scores(torch.tensor([0, 1]), "discover")
    assert scores[0, 2] > scores[0, 3] and scores[1, 3] > scores[1, 2]


def test_a_fact_of_a_fact_tells_of_an_item_too() -> None:
    graph = tiny_graph([(0, 0, 5)], items=4, item_entities=edges([(0, 0), (1, 1), (2, 2)]))
    graph = replace(graph, entity_count=4, entity_entities=edges([(0, 3), (1, 3)]))
    likeness = (contents(graph) @ contents(graph).T).toarray()
    assert likeness[0, 1] > 0 == likeness[0, 2]
    assert likeness.diagonal().tolist() == pytest.approx([1, 1, 1, 0])


def test_features_tell_of_items_beside_facts() -> None:
    graph = replace(tiny_graph([(0, 0, 5)], items=3), item_features=torch.tensor([[1.0], [2.0], [-1.0]]))
    scores = content(with_items_known(graph)).scores(torch.tensor([0]), "discover")[0]
    assert scores[1] > scores[2]


@pytest.mark.parametrize("by", ["user_entities", "user_users"])
def test_a_user_without_events_is_known_by_facts_or_friends(by: str) -> None:
    graph = tiny_graph([(0, 0, 5), (1, 1, 5)], users=4, items=4, item_entities=edges([(0, 0), (1, 1), (2, 0), (3, 1)]))
    told = edges([(0, 2), (2, 2), (1, 3)]) if by == "user_entities" else edges([(2, 0)])
    ranker = content(replace(with_items_known(graph), entity_count=4, **{by: told}))
    scores = ranker.scores(torch.tensor([2, 3]), "discover")
    assert scores[0, 2] > scores[0, 3]
    torch.testing.assert_close(scores[1], popularity_scores(graph, inf).log1p())  # of whom nothing is known


def test_content_says_which_item_of_the_history_it_goes_by() -> None:
    graph = shop()
    users = torch.arange(30)
    best = content(graph).scores(users, "discover")[:, :12].topk(1, dim=1).indices[:, 0]
    reasons, cause, entity = content(graph).explain(users, best, "discover")
    assert set(reasons) <= {"taste", "repeat"} and (entity == -1).all()
    assert (cause // 6 == users % 2).all() and (best // 6 == users % 2).all()


def episode(seed: int, rivals: bool = False) -> Episode:
    """Newcomers of two kinds whose first events tell which; the start does not. Row 0 has no first event."""
    dice = torch.Generator().manual_seed(seed)
    kind = torch.arange(12) % 2
    others = torch.randn(20, 6, generator=dice) * 0.1
    others[:, 0] += 2.0 * (torch.arange(20) % 2) - 1

    def drawn(rows: torch.Tensor) -> Pairs:
        return Pairs(rows, 2 * torch.randint(10, (len(rows),), generator=dice) + kind[rows])

    rows = torch.arange(1, 12)
    return Episode(torch.zeros(12, 6), others, drawn(rows), drawn(rows), rivals)


def test_a_step_goes_down_the_gradient_of_the_first_events() -> None:
    task = episode(0)
    values = task.starts.clone().requires_grad_()
    chance = (values @ task.others.T).log_softmax(1)[task.first.row, task.first.other]
    (gradient,) = torch.autograd.grad(-chance.sum(), values)
    adaptation = Adaptation(6, steps=1, rate=0.3)
    torch.testing.assert_close(
        adaptation(task.starts, task.others, task.first), -0.3 * gradient / 2
    )  # 1/(1 + c), c = 1


def test_meta_gradients_pass_through_the_steps_unless_told_not_to() -> None:
    task, losses = episode(0), []
    for first_order in (False, True):
        adaptation = Adaptation(6, first_order=first_order).double()
        tensors = [tensor.double() for tensor in (task.starts, task.others)]

        def loss(start: torch.Tensor, adaptation: Adaptation = adaptation, tensors: list = tensors) -> torch.Tensor:
            made = torch.func.functional_call(adaptation, {"start": start}, (*tensors, task.first))
            return later_loss(made, replace(task, others=tensors[1]))

        losses.append(loss)
    start = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses[0], start)
    assert not torch.autograd.gradcheck(losses[1], start, raise_exception=False)


@pytest.mark.parametrize("rivals", [False, True])
def test_meta_learning_finds_steps_that_foresee_what_comes_after_the_first_events(rivals: bool) -> None:
    learned = meta_learn(Adaptation(6, rate=0.1), (episode(seed, rivals) for seed in range(1, 41)))
    unseen = episode(0, rivals)
    before, after = (
        later_loss(one(unseen.starts, unseen.others, unseen.first), unseen)
        for one in (Adaptation(6, rate=0.1), learned)
    )
    assert after < before - 0.3
    scores = learned(unseen.starts, unseen.others, unseen.first) @ unseen.others.T
    assert ((scores[1:].argmax(1) % 2) == torch.arange(1, 12) % 2).all()


@pytest.mark.parametrize("side", ["user", "item"])
def test_who_pretends_to_be_new_keeps_the_first_pairs_and_is_asked_for_the_others(side: str) -> None:
    graph = shop()
    newcomers = torch.tensor([1, 4, 5])
    made = pretend(graph, side, newcomers, MOST_EVENTS, torch.Generator().manual_seed(3))  # pyright: ignore
    events, before = made.graph.interactions, graph.interactions
    mine, other = (events.user_index, events.item_index) if side == "user" else (events.item_index, events.user_index)
    was, whom = (before.user_index, before.item_index) if side == "user" else (before.item_index, before.user_index)
    assert (made.graph.interactions.user_index.diff() >= 0).all()
    for row, newcomer in enumerate(newcomers.tolist()):
        first = set(made.first.other[made.first.row == row].tolist())
        later = set(made.later.other[made.later.row == row].tolist())
        assert len(first) <= MOST_EVENTS and not first & later
        assert first | later == set(whom[was == newcomer].tolist())
        assert sorted(other[mine == newcomer].tolist()) == sorted(first)
        assert (events.age_days[mine == newcomer] == 1).all()
        age = {other: int(before.age_days[(was == newcomer) & (whom == other)].max()) for other in first | later}
        assert min((age[one] for one in first), default=inf) >= max((age[one] for one in later), default=0)
    assert torch.equal(events.age_days[~torch.isin(mine, newcomers)], before.age_days[~torch.isin(was, newcomers)])


def test_an_adapted_network_is_blind_to_the_future() -> None:
    assert_blind_to_the_future(partial(fit_adapted, rounds=ROUNDS, **SMALL))


def test_an_adapted_network_learns_the_same_bits_twice() -> None:
    assert_same_bits_twice(partial(fit_adapted, rounds=ROUNDS, **SMALL))


def with_events(graph: Graph, triples: list[tuple[int, int, int]]) -> Graph:
    more = tiny_graph(triples, users=graph.user_count, items=graph.item_count).interactions
    both = {name: torch.cat([column, vars(more)[name]]) for name, column in vars(graph.interactions).items()}
    events = Interactions(**both)
    return replace(
        graph,
        interactions=events.where(torch.argsort(events.user_index * graph.item_count + events.item_index, stable=True)),
    )


def test_one_event_turns_a_new_users_list_to_the_users_taste_and_leaves_other_users_theirs() -> None:
    graph = shop()  # user 30 has no events
    plain = fit_network(graph, HORIZON_DAYS, SETTINGS, 50.0, **SMALL)
    refresh = fit_adapted(graph, HORIZON_DAYS, SETTINGS, 50.0, rounds=ROUNDS, **SMALL)
    newcomer = torch.tensor([30])
    for half in (0, 1):
        now = with_events(graph, [(30, 6 * half + 2, 1)])
        adapted = refresh(now).scores(newcomer, "discover")[0, :12]
        assert (adapted.topk(5).indices // 6 == half).all()
        own = adapted.softmax(0)[6 * half : 6 * half + 6].sum()
        assert own > 0.8
    many = torch.bincount(graph.interactions.user_index) > MOST_EVENTS
    users = torch.nonzero(many).flatten()[:5]
    old = torch.arange(12)
    torch.testing.assert_close(
        refresh(graph).scores(users, "discover")[:, old],
        plain(graph).scores(users, "discover")[:, old],
        atol=1e-4,
        rtol=0,
    )


def test_a_new_items_first_buyers_say_who_else_may_like_it() -> None:
    """Item 12 is unknown when the network learns; then three even users buy it."""
    graph = with_items_known(replace(shop(), item_entities=edges())).back(20)
    now = with_events(graph, [(user, 12, 1) for user in (0, 2, 4)])
    plain = fit_network(graph, HORIZON_DAYS, SETTINGS, 50.0, **SMALL)
    refresh = fit_adapted(graph, HORIZON_DAYS, SETTINGS, 50.0, **SMALL, rounds=40)
    encoded, adapted = (one(now).scores(torch.arange(6, 30), "discover")[:, 12].softmax(0) for one in (plain, refresh))
    assert adapted[0::2].sum() > encoded[0::2].sum() > 0.5

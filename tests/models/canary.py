"""What a model of the past must not see: a graph whose last days were poisoned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from models.graph import Edges, Graph, Interactions
from models.ranking import Ranker
from models.settings import ModelSettings
from tests.models.tiny import edges, tiny_graph

Fit = Callable[[Graph, int, ModelSettings, float], Callable[[Graph], Ranker]]  # the last: half-life in horizons
DAYS = 20  # from here on everything is poison
HORIZON_DAYS = 7


def shop() -> Graph:
    """Two years of two tastes: even users buy items 0-5, odd users 6-11; item 12 is bought in the last days only."""
    dice = torch.Generator().manual_seed(1)
    ages = torch.randint(1, 730, (600,), generator=dice).tolist()
    items = torch.randint(0, 6, (600,), generator=dice).tolist()
    events = {(n % 30, item + 6 * (n % 2), age) for n, (item, age) in enumerate(zip(items, ages, strict=True))}
    graph = tiny_graph([*events, (3, 12, 5)], users=31, item_entities=edges([(item, item // 6) for item in range(12)]))
    return replace(graph, user_segment=torch.arange(31) % 2)


def poisoned(graph: Graph, days: int) -> Graph:
    """The same before the last `days` days; in them everybody buys the last item, and items and facts come and go."""
    old = graph.interactions.where(graph.interactions.age_days > days)
    users = torch.arange(graph.user_count)
    burst = Interactions(
        user_index=users,
        item_index=torch.full_like(users, graph.item_count - 1),
        event_type_index=torch.zeros_like(users),
        age_days=torch.full_like(users, days).int(),
        strength=torch.full((len(users),), 1e6),
        year_phase=torch.full((len(users),), 0.5),
        week_phase=torch.full((len(users),), 0.5),
        hours_to_midnight=torch.ones_like(users).int(),
    )
    joined = {name: torch.cat([column, vars(burst)[name]]) for name, column in vars(old).items()}
    order = torch.argsort(joined["user_index"] * graph.item_count + joined["item_index"], stable=True)
    facts = [(item, 0) for item in range(graph.item_count)]
    later = edges(facts, age_days=days)
    kept = {name: torch.cat([column, vars(later)[name]]) for name, column in vars(graph.item_entities).items()}
    return replace(
        graph,
        interactions=Interactions(**{name: column[order] for name, column in joined.items()}),
        item_age_days=torch.where(graph.item_age_days <= days, 1, graph.item_age_days),
        item_retired_age_days=torch.full_like(graph.item_retired_age_days, days),
        item_entities=Edges(**kept),
    )


def assert_blind_to_the_future(fit: Fit, half_life: float = 10.0) -> None:
    """Poison after a date changes no bit of what is learned and scored as of it; without `back` it changes the scores."""
    settings, graph = ModelSettings(), shop()
    users = torch.arange(graph.user_count)
    for list_name in ("for_you", "discover"):
        scores = [
            [fit(now, HORIZON_DAYS, settings, half_life)(now).scores(users, list_name) for now in (it.back(DAYS), it)]
            for it in (graph, poisoned(graph, DAYS))
        ]
        assert torch.equal(scores[0][0], scores[1][0])
        assert scores[0][0].isfinite().all()
        assert not torch.equal(scores[0][1], scores[1][1])


def assert_same_bits_twice(fit: Fit, half_life: float = 10.0) -> None:
    """Learning twice gives the same bits, and draws nothing from the global random state."""
    graph, settings = shop(), ModelSettings()
    users = torch.arange(graph.user_count)
    state = torch.get_rng_state()
    one, other = (fit(graph, HORIZON_DAYS, settings, half_life)(graph).scores(users, "for_you") for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def assert_tastes_are_told_apart(fit: Fit, half_life: float = 50.0) -> None:
    """The best items of a user are those of the user's own half of the shop, and so is the reason."""
    graph = shop()
    ranker = fit(graph, HORIZON_DAYS, ModelSettings(), half_life)(graph)
    users = torch.arange(30)
    best = ranker.scores(users, "discover")[:, :12].topk(3, dim=1).indices
    assert (best // 6 == users[:, None] % 2).float().mean() > 0.95
    reasons, cause, _ = ranker.explain(users, best[:, 0], "for_you")
    assert set(reasons) <= {"taste", "repeat", "trend"}
    assert [reason == "repeat" for reason in reasons] == (cause == best[:, 0]).tolist()
    assert (cause[cause >= 0] // 6 == users[cause >= 0] % 2).all()

"""What is planted in the shop must come out of the model: tastes, half-lives, seasons, facts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import Tensor

from models.evaluation import holdout, metrics
from models.graph import Graph
from models.network import Network, learned_half_lives_days
from models.network_ranker import NetworkRanker
from models.ranking import top_k
from models.season import seasonal_items
from models.settings import ModelSettings
from models.similar import similar_items
from models.training import fit
from tasks.graph import load_graph, node_ids
from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.validate import validate_delivery
from tasks.warehouse import open_warehouse
from tests.world import HALF_LIFE_DAYS, SHOP, end_date, planted, write_world

SIZE = {"users": 600, "items": 240}
MONTH = 28
BEFORE_CHRISTMAS_DAYS = 10  # back from 1 December: 21 November, before the peak of 15 December has begun
SETTINGS = ModelSettings(dimension=32, epochs=4, snapshot_count=60)


@dataclass(frozen=True)
class World:
    """The shop's graph and, in its numbering, what was planted."""

    graph: Graph
    items: pl.DataFrame
    users: pl.DataFrame

    def of_season(self, season: str) -> Tensor:
        """bool [I]."""
        return torch.tensor((self.items["season"].fill_null("") == season).to_list())

    @property
    def category(self) -> Tensor:
        """int64 [I]."""
        return torch.tensor(self.items["category_index"].to_list())

    @property
    def taste(self) -> Tensor:
        """int64 [U], −1 for users with two tastes."""
        single = pl.when(pl.col("second_taste_index").is_null()).then(pl.col("taste_index")).otherwise(-1)
        return torch.tensor(self.users.select(single).to_series().to_list())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("planted")
    home, files, source = folder / "home", folder / "files", load_source("shop")
    home.mkdir()
    write_world(files, **SIZE)
    parameters = SHOP | SIZE
    as_of = end_date(**parameters)
    build(home, files, as_of)
    with open_warehouse(home) as warehouse:
        graph = load_graph(warehouse, as_of, tuple(source.event_strength))
        user_ids, item_ids, _ = node_ids(warehouse)
    items = pl.DataFrame({"item_id": item_ids}).join(
        planted("items", **parameters), on="item_id", how="left", maintain_order="left"
    )
    users = pl.DataFrame({"user_id": user_ids}).join(
        planted("users", **parameters), on="user_id", how="left", maintain_order="left"
    )
    return World(graph, items, users)


def build(home: Path, files: Path, as_of: date) -> None:
    source = load_source("shop")
    land(home, source, files, as_of)
    validate_delivery(home, source, as_of, "planted")
    load(home, source, as_of, datetime(2025, 1, 1), "planted")
    build_staging(home, source, as_of)
    build_graph(home, source, as_of)


@pytest.fixture(scope="module")
def network(world: World) -> Network:
    """Knows the time of the year; as of 21 November, for the coming month."""
    return fit(world.graph.back(BEFORE_CHRISTMAS_DAYS), MONTH, SETTINGS, epochs=SETTINGS.epochs)


def lists_of(network: Network, graph: Graph, list_name: str) -> tuple[Tensor, Tensor]:
    """Users with at least 20 events, and their top 20."""
    users = torch.nonzero(torch.bincount(graph.interactions.user_index, minlength=graph.user_count) >= 20).squeeze(1)
    items, _ = top_k(NetworkRanker(network, graph), graph, users, 20, list_name, True)
    return users, items


def test_the_half_life_of_each_event_type_is_learned(world: World) -> None:
    """From every day of the period. Without taste the users' lasting likings would pass for long half-lives."""
    daily = SETTINGS.model_copy(
        update={
            "dimension": 16,
            "dropout": 0.2,
            "learning_rate": 2e-2,
            "epochs": 2,
            "repeat_half_lives_days": (15.0, 1000.0),
            "snapshot_every_days": 1,
            "snapshot_count": 1400,
            "snapshot_half_life_days": 2000.0,
        }
    )
    learned = learned_half_lives_days(fit(world.graph, 1, daily, epochs=daily.epochs))
    for event_type, half_life in HALF_LIFE_DAYS.items():
        assert half_life / 1.15 < learned[event_type] < half_life * 1.15


def test_seasonal_items_are_recognised_by_the_phase_of_their_sales(world: World) -> None:
    found = seasonal_items(world.graph, false_discovery=0.05)
    planted_season = ~world.of_season("none")
    told = planted_season & (found.sales >= 10)  # fewer independent sales cannot tell
    assert found.is_seasonal[told].float().mean() >= 0.95
    assert planted_season[found.is_seasonal].float().mean() >= 0.95
    for season, peak_day in (("winter", 15), ("summer", 197), ("christmas", 349)):
        peaks = found.peak_phase[found.is_seasonal & world.of_season(season)]
        away = (peaks - peak_day / 365.25 + 0.5) % 1 - 0.5
        assert away.abs().median() < 21 / 365.25
    events = world.graph.interactions
    traded = torch.randperm(len(events.year_phase), generator=torch.Generator().manual_seed(0))
    blind = replace(world.graph, interactions=replace(events, year_phase=events.year_phase[traded]))
    assert seasonal_items(blind).is_seasonal[planted_season].float().mean() < 0.05


def test_items_lie_near_items_of_their_own_category(world: World, network: Network) -> None:
    graph = world.graph.back(BEFORE_CHRISTMAS_DAYS)
    similar, _ = similar_items(NetworkRanker(network, graph), graph, 5)
    live = graph.live_items
    same = world.category[similar[live]] == world.category[live][:, None]
    assert same.float().mean() > 0.8  # 1/12 by chance
    assert not (similar[live] == torch.nonzero(live)).any()
    assert (similar[~live] == -1).all()


def test_lists_follow_the_planted_tastes(world: World, network: Network) -> None:
    users, items = lists_of(network, world.graph.back(BEFORE_CHRISTMAS_DAYS), "for_you")
    single = world.taste[users] >= 0
    own = world.category[items[single]] == world.taste[users[single], None]
    assert own.float().mean() > 0.3  # 1/12 by chance


def test_christmas_items_enter_the_lists_of_november_only_if_the_phase_is_known(world: World, network: Network) -> None:
    graph = world.graph.back(BEFORE_CHRISTMAS_DAYS)
    blind = fit(graph, MONTH, SETTINGS.model_copy(update={"phase": False}), epochs=SETTINGS.epochs)
    christmas = world.of_season("christmas")
    for list_name in ("for_you", "discover"):
        share, share_blind = (
            float(christmas[lists_of(each, graph, list_name)[1]].float().mean()) for each in (network, blind)
        )
        assert share > 2 * share_blind
    summer = graph.back(130)  # mid-July
    assert christmas[lists_of(network, summer, "for_you")[1]].float().mean() < share / 2


def test_before_christmas_lists_of_new_items_are_a_fifth_better_with_the_phase(world: World) -> None:
    ndcgs: dict[bool, list[Tensor]] = {True: [], False: []}
    for day in (date(2023, 11, 20), date(2023, 12, 4)):
        judged = holdout(world.graph, MONTH, (world.graph.as_of - day).days, world.graph.user_count)
        for phase, found in ndcgs.items():
            network = fit(judged.graph, MONTH, SETTINGS.model_copy(update={"phase": phase}), epochs=SETTINGS.epochs)
            found.append(metrics(NetworkRanker(network, judged.graph), judged, "discover", 20)["ndcg"])
    on, off = (torch.cat(found).mean() for found in ndcgs.values())
    assert on > 1.2 * off


def test_a_cold_item_moves_when_its_facts_are_removed(world: World, network: Network) -> None:
    graph = world.graph.back(BEFORE_CHRISTMAS_DAYS)
    sold = torch.bincount(graph.interactions.item_index, minlength=graph.item_count) > 0
    told = torch.bincount(graph.item_entities.source_index, minlength=graph.item_count) > 0
    cold = torch.nonzero(graph.live_items & ~sold & told).squeeze(1)
    if not len(cold):
        sample = torch.nonzero(graph.live_items & told).squeeze(1)[:5]
        events = graph.interactions
        graph = replace(graph, interactions=events.where(~torch.isin(events.item_index, sample)))
        cold = sample
    users = torch.arange(graph.user_count)
    edges = graph.item_entities
    kept = ~torch.isin(edges.source_index, cold)
    bare = replace(graph, item_entities=replace(edges, **{name: value[kept] for name, value in vars(edges).items()}))
    with_facts = NetworkRanker(network, graph).scores(users, "discover")[:, cold]
    without = NetworkRanker(network, bare).scores(users, "discover")[:, cold]
    active = torch.bincount(graph.interactions.user_index, minlength=graph.user_count) >= 20
    assert ((with_facts - without)[active].abs() > 1e-3).float().mean() > 0.9

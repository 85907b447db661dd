"""From raw to staging to graph: only what was known before the date, each thing once, and the same graph from any later one."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from models.graph import NEVER, Edges, Graph
from models.kernels import week_phase, year_phase
from tasks.errors import ContractError
from tasks.graph import load_graph, node_ids
from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import GRAPH, STAGING, build_graph, build_staging
from tasks.warehouse import SQL, open_warehouse
from tests.conftest import Published
from tests.tiny_source import Row, TinySource, event, tiny_source
from tests.world import SHOP, end_date

AS_OF = date(2024, 4, 1)
TABLES = ("interactions", "users", "items", "facts", "links")
SHOP_TYPES = ("view", "cart", "purchase")


def user(name: str = "u1", since: str = "2024-01-01", country: str = "FR", age: str = "") -> Row:
    return {"user_id": name, "valid_from": since, "country": country, "age": age}


def item(name: str = "i1", since: str = "2024-01-01", **changes: str) -> Row:
    row = {"item_id": name, "valid_from": since, "valid_to": "", "brand": "", "tags": "", "price": "", "made": ""}
    return row | changes


def fact(subject: str, relation: str, value: str, since: str = "") -> Row:
    return {"subject": subject, "relation": relation, "object": value, "since": since}


def link(name: str, other: str, strength: str = "1", since: str = "") -> Row:
    return {"user_id": name, "other_user_id": other, "relation": "friend", "strength": strength, "since": since}


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., TinySource]:
    """Stages tables given by name, each a list of rows, as of a date."""

    def stage(as_of: date = AS_OF, *, settings: str = "", **tables: list[Row]) -> TinySource:
        tables = {"interactions": [event()]} | tables
        tiny = tiny_source(tmp_path / "tiny", settings=settings, tables=tuple(tables))
        for table, rows in tables.items():
            tiny.deliver(f"{table}.csv", rows)
        tiny.stage(as_of)
        return tiny

    return stage


def attributes(tiny: TinySource, name: str) -> dict[str, set[object]]:
    """Attribute → its categories and numbers, of one user or item."""
    query = f"select attribute, coalesce(category, number::varchar) from staging.attributes where node_id = '{name}'"
    found: dict[str, set[object]] = {}
    for attribute, value in tiny.rows(query):
        found.setdefault(attribute, set()).add(value)
    return found


def knowledge(tiny: TinySource) -> set[tuple]:
    """Knowledge edges by name instead of by index: source, relation, entity, age."""
    return set(
        tiny.rows(
            "select coalesce(users.user_id, items.item_id, sources.entity_id), relation, entities.entity_id,"
            " edges.age_days from graph.knowledge_edges as edges join graph.entity_nodes as entities using (entity_index)"
            " left join graph.user_nodes as users on source_kind = 'user' and source_index = user_index"
            " left join graph.item_nodes as items on source_kind = 'item' and source_index = item_index"
            " left join graph.entity_nodes as sources on source_kind = 'entity' and source_index = sources.entity_index"
        )
    )


def test_events_with_equal_natural_keys_are_one_event_that_counts_its_rows(stage: Callable[..., TinySource]) -> None:
    rows = [event(value="1"), event(value="3"), event(at="2024-03-01 10:00:01"), event(event_type="view")]
    tiny = stage(interactions=rows)
    staged = "select event_type, second(occurred_at), value, duplicate_count from staging.interactions order by all"
    assert tiny.rows(staged) == [("purchase", 0, 3.0, 2), ("purchase", 1, 1.0, 1), ("view", 0, 1.0, 1)]
    edges = "select event_type, strength from graph.interaction_edges order by all"
    assert tiny.rows(edges) == [("purchase", 2.0), ("view", 0.5)]


def test_the_hour_of_a_days_last_event_counts_by_the_clock_of_the_source(stage: Callable[..., TinySource]) -> None:
    times = {  # UTC → hours to the midnight that ends the same date in São Paulo, three hours behind
        "2024-03-01 22:15:00": 5,
        "2024-03-02 23:59:59": 4,
        "2024-03-03 03:00:00": 24,
        "2024-03-04 02:59:59": 24,  # still the 3rd there, while the source says the 4th
        "2024-03-05 00:00:00": 24,
    }
    rows = [event(at=at) for at in times] + [event(at="2024-03-01 10:00:00")]
    tiny = stage(interactions=rows, settings='time_zone = "America/Sao_Paulo"')
    edges = "select hours_to_midnight from graph.interaction_edges order by event_date"
    assert [hours for (hours,) in tiny.rows(edges)] == list(times.values())


def test_the_natural_key_is_the_sources_own(stage: Callable[..., TinySource]) -> None:
    rows = [event(), event(at="2024-03-02 10:00:00"), event(at="2024-03-02 23:00:00")]
    tiny = stage(interactions=rows, settings='natural_key = ["user_id", "item_id", "event_date"]')
    staged = "select event_date, duplicate_count from staging.interactions order by all"
    assert tiny.rows(staged) == [(date(2024, 3, 1), 1), (date(2024, 3, 2), 2)]


def test_only_what_is_current_kept_and_dated_before_the_date_is_staged(stage: Callable[..., TinySource]) -> None:
    rows = [event(), event(user="u2", excluded="test"), event(user="u3", at="2024-03-20"), event(user="u4", item="")]
    tiny = stage(interactions=rows)
    build_staging(tiny.home, tiny.source, date(2024, 3, 20))
    assert tiny.rows("select user_id from staging.interactions") == [("u1",)]
    assert tiny.rows("select user_id from staging.users") == [("u1",)]
    tiny.deliver("interactions.csv", [event(user="u9")])
    tiny.stage(AS_OF)
    assert tiny.rows("select user_id from staging.interactions") == [("u9",)]


def test_attributes_are_the_newest_version_known_before_the_date(stage: Callable[..., TinySource]) -> None:
    versions = [
        user(since=f"2024-0{month}-01", country=country) for month, country in ((1, "FR"), (3, "DE"), (4, "IT"))
    ]
    tiny = stage(date(2024, 5, 1), users=versions)
    for as_of, country, since in (
        (date(2024, 2, 1), "FR", date(2024, 1, 1)),
        (date(2024, 3, 1), "FR", date(2024, 1, 1)),
        (date(2024, 3, 2), "DE", date(2024, 3, 1)),
        (AS_OF, "DE", date(2024, 3, 1)),
        (date(2024, 4, 2), "IT", date(2024, 4, 1)),
    ):
        build_staging(tiny.home, tiny.source, as_of)
        assert tiny.rows("select country, valid_from from staging.users") == [(country, date(2024, 1, 1))]
        assert tiny.rows("select category, since from staging.attributes") == [(country, since)]


def test_undated_attributes_count_as_always_known_of_users_known_by_a_date_or_an_event(
    stage: Callable[..., TinySource],
) -> None:
    tiny = stage(
        users=[
            user(since="", country="FR"),
            user(since="2024-03-01", country="DE"),
            user("u2", since=""),
            user("u3", since=""),
        ],
        interactions=[event(), event(user="u2")],
    )
    assert tiny.rows("select user_id, country from staging.users order by all") == [("u1", "DE"), ("u2", "FR")]
    assert tiny.rows("select age_days from graph.user_nodes order by user_index") == [(31,), (31,)]
    assert tiny.rows("select since from staging.attributes where node_id = 'u2'") == [(None,)]
    assert tiny.rows("select * from staging.attributes where node_id = 'u3'") == []


def test_an_item_is_known_from_launch_or_first_event_whichever_comes_first(stage: Callable[..., TinySource]) -> None:
    rows = [event(item="seen"), event(item="early"), event(item="late", at="2024-03-20")]
    launched = [
        item("early", "2024-03-05"),
        item("late", "2024-03-05"),
        item("new", "2024-03-31"),
        item("not yet", "2024-04-01"),
    ]
    tiny = stage(interactions=rows, items=launched)
    ages = dict(tiny.rows("select item_id, age_days from graph.item_nodes"))
    assert ages == {"seen": 31, "early": 31, "late": 27, "new": 1}


def test_an_item_is_retired_only_once_its_last_day_is_before_the_date(stage: Callable[..., TinySource]) -> None:
    ends = {"never": "", "past": "2024-03-31", "today": "2024-04-01", "later": "2024-06-01"}
    tiny = stage(items=[item(name, valid_to=end) for name, end in ends.items()])
    retired = dict(tiny.rows("select item_id, retired_age_days from graph.item_nodes where item_id != 'i1'"))
    assert retired == {"never": None, "past": 1, "today": None, "later": None}
    with open_warehouse(tiny.home) as warehouse:
        graph = load_graph(warehouse, AS_OF, tuple(tiny.source.event_strength))
        live = {name for name, is_live in zip(node_ids(warehouse)[1], graph.live_items, strict=True) if is_live}
    assert live == {"i1", "never", "today", "later"}


def test_text_and_lists_become_categories_numbers_and_dates_become_features(stage: Callable[..., TinySource]) -> None:
    tiny = stage(
        users=[user(age="30"), user("u2", age="50")],
        items=[
            item(brand=" acme ", tags="red|round", price="2.5", made="2024-03-22"),
            item("i2", tags="red", price="7.5"),
        ],
    )
    assert attributes(tiny, "i1") == {
        "brand": {"acme"},
        "tags": {"red", "round"},
        "price": {"eighth 1"},
        "made": {"eighth 1"},
    }
    assert attributes(tiny, "u1") == {"country": {"FR"}, "age": {"eighth 1"}}
    features = tiny.rows("select node_kind, attribute, node_index, number from graph.features order by all")
    assert features == [
        ("item", "made", 0, 10.0),
        ("item", "price", 0, 2.5),
        ("item", "price", 1, 7.5),
        ("user", "age", 0, 30.0),
        ("user", "age", 1, 50.0),
    ]
    with open_warehouse(tiny.home) as warehouse:
        graph = load_graph(warehouse, AS_OF, tuple(tiny.source.event_strength))
    assert graph.user_features.tolist() == [[-1.0], [1.0]], "standardised"
    assert graph.item_features.tolist() == [[0.0, -1.0], [0.0, 1.0]], "made, price; nothing to tell for one value"


def test_numbers_are_also_in_the_category_of_their_eighth(stage: Callable[..., TinySource]) -> None:
    tiny = stage(items=[item(f"i{number:02}", price=str(number)) for number in range(1, 18)])
    eighths = "select number, category from staging.attributes where attribute = 'price' order by number"
    assert tiny.rows(eighths) == [(float(number), f"eighth {min(8, 1 + (number - 1) // 2)}") for number in range(1, 18)]
    shared = [name for (name,) in tiny.rows("select entity_id from graph.entity_nodes")]
    assert sorted(shared) == [f"price=eighth {number}" for number in range(1, 9)]


def test_a_date_not_yet_come_is_no_feature(stage: Callable[..., TinySource]) -> None:
    tiny = stage(items=[item(made="2024-03-31"), item("i2", made="2024-04-01"), item("i3", made="2025-01-01")])
    assert tiny.rows("select node_id, number from staging.attributes where attribute = 'made'") == [("i1", 1.0)]


def test_of_two_versions_of_one_day_the_one_delivered_last_holds(stage: Callable[..., TinySource]) -> None:
    tiny = stage(users=[user(country="FR")])
    tiny.deliver("users-older-by-name.csv", [user(country="DE")])
    tiny.stage(AS_OF)
    assert tiny.rows("select country from staging.users") == [("DE",)]
    assert tiny.rows("select category from staging.attributes") == [("DE",)]


def test_a_fact_that_repeats_a_category_is_one_edge(stage: Callable[..., TinySource]) -> None:
    items = [item(brand="acme"), item("i2", brand="acme")]
    tiny = stage(
        items=items, facts=[fact("i1", "brand", "brand=acme"), fact("i2", "brand", "brand=acme", "2024-03-02")]
    )
    assert tiny.rows("select source_index, age_days from graph.knowledge_edges order by all") == [(0, None), (1, 91)]


def test_a_category_with_one_bearer_makes_no_entity(stage: Callable[..., TinySource]) -> None:
    tiny = stage(
        items=[item(brand="acme", tags="red"), item("i2", brand="acme", tags="blue|red"), item("i3", brand="lone")]
    )
    entities = [name for (name,) in tiny.rows("select entity_id from graph.entity_nodes order by entity_index")]
    assert entities == ["brand=acme", "tags=red"]
    assert knowledge(tiny) == {
        ("i1", "brand", "brand=acme", 91),
        ("i2", "brand", "brand=acme", 91),
        ("i1", "tags", "tags=red", 91),
        ("i2", "tags", "tags=red", 91),
    }


def test_undated_facts_of_an_item_launched_later_wait_for_it(stage: Callable[..., TinySource]) -> None:
    facts = [fact("i1", "made_of", "tin"), fact("later", "made_of", "gold"), fact("later", "made_of", "tin")]
    tiny = stage(items=[item("later", "2024-04-01")], facts=facts)
    assert tiny.rows("select entity_id from graph.entity_nodes") == [("tin",)]
    assert knowledge(tiny) == {("i1", "made_of", "tin", None)}


def test_facts_tie_items_to_entities_and_entities_to_each_other(stage: Callable[..., TinySource]) -> None:
    facts = [
        fact("i1", "made_by", "acme"),
        fact("acme", "owned_by", "group", since="2024-03-02"),
        fact("i1", "made_by", "acme", since="2024-03-05"),
        fact("i1", "made_of", "tin", since="2024-03-31"),
        fact("i1", "made_of", "gold", since="2024-04-01"),
    ]
    tiny = stage(facts=facts)
    assert knowledge(tiny) == {
        ("i1", "made_by", "acme", None),
        ("acme", "owned_by", "group", 30),
        ("i1", "made_of", "tin", 1),
    }


def test_an_item_that_is_the_object_of_a_fact_is_tied_to_itself(stage: Callable[..., TinySource]) -> None:
    tiny = stage(items=[item("case"), item("phone")], facts=[fact("case", "fits", "phone")])
    assert knowledge(tiny) == {("case", "fits", "phone", None), ("phone", "is", "phone", None)}


def test_links_join_known_users_and_keep_strength_and_date(stage: Callable[..., TinySource]) -> None:
    links = [
        link("u1", "u2", "0.5", "2024-03-02"),
        link("u1", "u2", "3", "2024-03-05"),
        link("u2", "u1"),
        link("u1", "u1"),
        link("u1", "stranger"),
        link("u3", "u1", "0"),
        link("u3", "u2", "", "2024-04-01"),
    ]
    tiny = stage(interactions=[event(name) for name in ("u1", "u2", "u3")], links=links)
    edges = "select user_index, other_user_index, relation, weight, age_days from graph.social_edges order by all"
    assert tiny.rows(edges) == [(0, 1, "friend", 3.0, 30), (1, 0, "friend", 1.0, None)]


def test_segments_come_from_the_named_column(stage: Callable[..., TinySource]) -> None:
    users = [user(), user("u2", country="DE"), user("u3", country="")]
    tiny = stage(users=users, settings='segment_column = "country"')
    assert tiny.rows("select user_id, segment from graph.user_nodes order by all") == [
        ("u1", "FR"),
        ("u2", "DE"),
        ("u3", ""),
    ]


def test_a_source_of_interactions_alone_has_a_graph(stage: Callable[..., TinySource]) -> None:
    tiny = stage()
    with open_warehouse(tiny.home) as warehouse:
        graph = load_graph(warehouse, AS_OF, tuple(tiny.source.event_strength))
    assert (graph.user_count, graph.item_count, graph.entity_count, graph.relations) == (1, 1, 0, ())
    assert graph.interactions.age_days.tolist() == [31]
    assert graph.interactions.event_type_index.tolist() == [list(tiny.source.event_strength).index("purchase")]


def documented_keys() -> list[tuple[str, str]]:
    """Each staging and graph table with the key its file states."""
    keys = []
    for table in [f"staging.{name}" for name in STAGING] + [f"graph.{name}" for name in GRAPH]:
        stated = re.search(r"^-- key: (.*)$", (SQL / f"{table.replace('.', '/')}.sql").read_text(), re.MULTILINE)
        assert stated, f"{table} states no key"
        key = stated[1].split(", 0..n-1")[0]
        keys.append((table, ", ".join(load_source("shop").natural_key) if "natural_key" in key else key))
    return keys


@pytest.mark.parametrize(("table", "key"), documented_keys())
def test_the_documented_key_of_a_table_is_unique(table: str, key: str, published: Published) -> None:
    with open_warehouse(published.home) as warehouse:
        rows, keys = warehouse.execute(f"select count(*), count(distinct ({key})) from {table}").fetchall()[0]
        assert (rows or table.endswith(".context")) and rows == keys  # the shop has no context


@pytest.mark.parametrize("kind", ["user", "item", "entity"])
def test_indices_run_from_0_in_the_order_of_the_ids(kind: str, published: Published) -> None:
    with open_warehouse(published.home) as warehouse:
        found = warehouse.execute(f"select {kind}_index, {kind}_id from graph.{kind}_nodes order by 1").fetchall()
    assert [index for index, _ in found] == list(range(len(found)))
    names = [name for _, name in found]
    assert names == sorted(names)


def test_phases_in_sql_are_those_of_the_kernels(published: Published) -> None:
    with open_warehouse(published.home) as warehouse:
        edges = "select distinct event_date, year_phase, week_phase from graph.interaction_edges"
        found = warehouse.execute(edges).fetchall()
    assert len(found) > 365
    for day, of_year, of_week in found:
        assert (of_year, of_week) == (np.float32(year_phase(day)), np.float32(week_phase(day)))


@pytest.fixture(scope="module")
def shop_graphs(
    shop_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[date], tuple[Graph, list[list[str]]]]:
    """The shop's graph and node ids as SQL builds them for a date, all dates from one load."""
    home = tmp_path_factory.mktemp("graphs")
    source, last = load_source("shop"), end_date(**(SHOP | {"days": 420}))
    land(home, source, shop_files, last)
    load(home, source, last, datetime(2024, 1, 1), "run")

    def graph_of(as_of: date) -> tuple[Graph, list[list[str]]]:
        build_staging(home, source, as_of)
        build_graph(home, source, as_of)
        with open_warehouse(home) as warehouse:
            return load_graph(warehouse, as_of, SHOP_TYPES), list(node_ids(warehouse))

    return graph_of


def events_by_name(graph: Graph, ids: list[list[str]]) -> list[tuple]:
    columns = {name: column.tolist() for name, column in vars(graph.interactions).items()}
    users, items = (ids[0][i] for i in columns.pop("user_index")), (ids[1][i] for i in columns.pop("item_index"))
    return sorted(zip(users, items, *columns.values(), strict=True))


def edges_by_name(edges: Edges, graph: Graph, sources: list[str], targets: list[str]) -> set[tuple]:
    dated = edges.age_days < NEVER
    return {
        (sources[source], targets[target], graph.relations[relation], age if is_dated else None)
        for source, target, relation, age, is_dated in zip(
            edges.source_index.tolist(),
            edges.target_index.tolist(),
            edges.relation_index.tolist(),
            edges.age_days.tolist(),
            dated.tolist(),
            strict=True,
        )
    }


@pytest.mark.parametrize("days", [1, 28, 200])
def test_a_graph_taken_back_is_the_graph_sql_builds_for_the_earlier_date(
    days: int, shop_graphs: Callable[[date], tuple[Graph, list[list[str]]]]
) -> None:
    last = end_date(**(SHOP | {"days": 420}))
    later, later_ids = shop_graphs(last)
    earlier, ids = shop_graphs(last - timedelta(days=days))
    back = later.back(days)
    assert back.as_of == earlier.as_of
    assert 0 < len(earlier.interactions.age_days) < len(later.interactions.age_days)
    assert events_by_name(back, later_ids) == events_by_name(earlier, ids)

    def live(graph: Graph, names: list[str]) -> dict[str, int]:
        return {names[i]: int(graph.item_age_days[i]) for i in torch.nonzero(graph.live_items).flatten().tolist()}

    assert live(back, later_ids[1]) == live(earlier, ids[1])
    friends = edges_by_name(earlier.user_users, earlier, ids[0], ids[0])
    kept = edges_by_name(back.user_users, back, later_ids[0], later_ids[0])
    known = set(ids[0])  # a user who came later stays in the numbering, without events, and so do undated links to it
    assert friends and {edge for edge in kept if known.issuperset(edge[:2])} == friends
    owned = edges_by_name(earlier.entity_entities, earlier, ids[2], ids[2])
    owned = {edge for edge in owned if edge[0] not in later_ids[1]}  # undated facts precede the launch of their item
    assert owned and edges_by_name(back.entity_entities, back, later_ids[2], later_ids[2]) == owned


def test_of_undated_versions_the_newest_delivery_holds(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "users"))
    tiny.deliver("interactions.csv", [event()])
    for file, country in (("users_1.csv", "FR"), ("users_2.csv", "DE")):
        tiny.deliver(file, [user(since="", country=country)])
        tiny.stage(AS_OF)
        assert tiny.rows("select country from staging.users") == [(country,)]


def test_a_segment_column_that_users_lack_is_refused(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='segment_column = "contry"')
    tiny.deliver("interactions.csv", [event()])
    with pytest.raises(ContractError, match="contry"):
        tiny.stage(AS_OF)

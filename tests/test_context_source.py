"""Context from its files to the list: each row accounted for, known from its day on, and never a day before."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
import torch

from models.graph import NEVER, Graph
from models.lists import Lists, lists
from models.network_ranker import NetworkRanker
from models.settings import ModelSettings
from models.training import fit
from tasks.graph import load_graph, node_ids
from tasks.ingest import load
from tasks.transform import GRAPH, STAGING, build_graph, build_staging, undated
from tasks.validate import validate_delivery
from tasks.warehouse import open_warehouse
from tests.tiny_source import Row, TinySource, event, tiny_source

AS_OF = date(2024, 4, 1)
DAYS = "select series, day_age_days, known_age_days, value from graph.context order by all"


def day(of: str = "2024-03-31", series: str = "festival", value: str = "1", known: str = "") -> Row:
    return {"context_date": of, "series": series, "value": value, "known_since": known}


@pytest.fixture
def tiny(tmp_path: Path) -> TinySource:
    """A source with one purchase and a context."""
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "context"))
    tiny.deliver("interactions.csv", [event()])
    return tiny


def graph_of(tiny: TinySource, as_of: date = AS_OF) -> Graph:
    with open_warehouse(tiny.home) as warehouse:
        return load_graph(warehouse, as_of, tuple(tiny.source.event_strength))


def test_every_row_of_a_context_has_its_fate(tiny: TinySource) -> None:
    broken = {
        "context_date missing": day(of="soon"),
        "context_date before 1980 or after 2199": day(of="1970-01-01"),
        "series missing": day(series=""),
        "series blank, padded or with control characters": day(series=" festival"),
        "series longer than 256 characters": day(series="s" * 257),
        "value missing": day(value="hot"),
        "value not finite": day(value="nan"),
        "known_since before 1980": day(known="1900-01-01"),
    }
    good = [day(), day(of="2030-01-01"), day(series="degrees", value="-7.5", known="2024-03-30")]
    late = [day(known="2024-04-01"), day(value="nan", known="2024-05-01")]
    tiny.deliver("context.csv", [*good, *late, *broken.values(), day(of="2200-01-01"), day(value="inf")])
    fates = {("loaded", None): 3, ("deferred", None): 2} | {("quarantined", rule): 1 for rule in broken}
    fates["quarantined", "context_date before 1980 or after 2199"] = fates["quarantined", "value not finite"] = 2
    assert tiny.ingest(AS_OF)["context.csv"] == fates
    build_staging(tiny.home, tiny.source, AS_OF)
    build_graph(tiny.home, tiny.source, AS_OF)
    assert tiny.rows(DAYS) == [("degrees", 1, 2, -7.5), ("festival", -2101, None, 1.0), ("festival", 1, None, 1.0)]
    assert undated(tiny.home)["context"] == 2
    again = {("unchanged" if fate == "loaded" else fate, rule): count for (fate, rule), count in fates.items()}
    assert tiny.ingest(AS_OF)["context.csv"] == again


def test_a_day_to_come_is_known_by_its_forecast_and_a_version_counts_from_the_day_after_it_was_known(
    tiny: TinySource,
) -> None:
    versions = [("30", "2024-03-25"), ("20", "2024-03-30"), ("-5", "2024-04-05")]
    tiny.deliver("context.csv", [day("2024-04-03", "degrees", *version) for version in versions])
    tiny.stage(date(2024, 5, 1))
    for as_of, expected in (
        (date(2024, 3, 25), []),
        (date(2024, 3, 26), [("degrees", -8, 1, 30.0)]),
        (AS_OF, [("degrees", -2, 2, 20.0), ("degrees", -2, 7, 30.0)]),
        (date(2024, 4, 6), [("degrees", 3, 1, -5.0), ("degrees", 3, 7, 20.0), ("degrees", 3, 12, 30.0)]),
    ):
        build_staging(tiny.home, tiny.source, as_of)
        build_graph(tiny.home, tiny.source, as_of)
        assert tiny.rows(DAYS) == expected


def test_of_rows_that_tell_the_same_thing_differently_the_last_counts_and_is_told(tiny: TinySource) -> None:
    tiny.deliver("context.csv", [day(value="1"), day(value="2"), day(series="other")])
    tiny.land(AS_OF)
    [told] = [
        result
        for result in validate_delivery(tiny.home, tiny.source, AS_OF, "run")
        if result["table_name"] == "delivery.new_context" and not result["success"]
    ]
    assert (told["severity"], told["failed"]) == ("warning", 2)
    load(tiny.home, tiny.source, AS_OF, datetime(2024, 4, 1), "run")
    build_staging(tiny.home, tiny.source, AS_OF)
    assert tiny.rows("select series, value from staging.context order by all") == [("festival", 2.0), ("other", 1.0)]
    tiny.deliver("context_2.csv", [day(value="3")])
    tiny.stage(AS_OF)
    assert tiny.rows("select value from staging.context where series = 'festival'") == [(3.0,)]


def test_a_context_becomes_tensors_by_series(tiny: TinySource) -> None:
    tiny.deliver("context.csv", [day(series="b", known="2024-03-30"), day("2024-04-02", "a", "-0.5")])
    tiny.stage(AS_OF)
    context = graph_of(tiny).context
    assert context.series == ("a", "b")
    assert context.series_index.tolist() == [0, 1]
    assert context.day_age_days.tolist() == [-1, 1]
    assert context.known_age_days.tolist() == [NEVER, 2]
    assert context.value.tolist() == [-0.5, 1.0]


def test_a_source_without_context_has_none(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    tiny.stage(AS_OF)
    assert graph_of(tiny).context.series == ()
    assert "context" not in undated(tiny.home)


FESTIVALS = ("2023-03-06", "2023-05-29", "2023-08-14", "2023-10-30", "2024-01-22", "2024-04-03")


def festival_shop(root: Path) -> TinySource:
    """Three cakes sell on festival days, and well, nine breads on all others; the festivals' dates are known for ever."""
    tiny = tiny_source(root, tables=("interactions", "context"))
    dice = random.Random(3)
    rows = []
    for age in range(1, 450):
        sold_on = str(AS_OF - timedelta(days=age))
        kind, kinds, count = ("cake", 3, 40) if sold_on in FESTIVALS else ("bread", 9, 8)
        rows += [event(f"u{dice.randrange(900)}", f"{kind} {dice.randrange(kinds)}", sold_on) for _ in range(count)]
    tiny.deliver("interactions.csv", rows)
    tiny.deliver("context.csv", [day(of) for of in FESTIVALS])
    return tiny


def published(tiny: TinySource) -> tuple[Lists, list[str]]:
    """What a run as of AS_OF recommends to new tastes, and the items' ids."""
    tiny.stage(AS_OF)
    graph = graph_of(tiny)
    with open_warehouse(tiny.home) as warehouse:
        _, items, _ = node_ids(warehouse)
    network = fit(graph, 7, ModelSettings(taste=False, epochs=4, learning_rate=2e-2), epochs=4)
    return lists(NetworkRanker(network, graph), graph, 3, "discover", True), items


def test_the_cake_of_the_coming_festival_is_on_top_and_nothing_known_later_changes_a_score(tmp_path: Path) -> None:
    plain, poisoned = festival_shop(tmp_path / "plain"), festival_shop(tmp_path / "poisoned")
    days = [str(AS_OF + timedelta(days=ahead)) for ahead in range(-300, 60)]
    late = [day(of, series, "9", str(AS_OF)) for of in days for series in ("festival", "new")]
    poisoned.deliver("context_late.csv", late + [row | {"known_since": "2024-06-01", "value": "-9"} for row in late])
    (shown, items), (after, _) = published(plain), published(poisoned)
    cakes = [items[index].startswith("cake") for index in shown.item_index.tolist()]
    assert sum(cakes) > 0.9 * len(cakes)
    reasons = [reason for reason, is_cake in zip(shown.reason, cakes, strict=True) if is_cake]
    assert reasons.count("context") > 0.9 * len(reasons)
    assert torch.equal(shown.item_index, after.item_index) and torch.equal(shown.score, after.score)
    for table in [f"staging.{name}" for name in STAGING] + [f"graph.{name}" for name in GRAPH]:
        assert plain.rows(f"from {table} order by all") == poisoned.rows(f"from {table} order by all")
    counts = "select row_count from mart.accounting where source_file = 'context_late.csv' and fate = 'deferred'"
    assert poisoned.rows(counts) == [(4 * len(days),)]

"""Expectations: what fails is quarantined or refused, what errors is never a pass."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from tasks.errors import DataQualityError, ExpectationError
from tasks.expectations import check
from tasks.sources import CONTRACTS, load_source
from tasks.transform import build_staging
from tasks.validate import SUITES, validate_staging
from tasks.warehouse import connect, open_warehouse
from tests.conftest import Published
from tests.tiny_source import Row, event, tiny_source

AS_OF = date(2024, 3, 10)


def test_failing_rows_are_quarantined_with_rule_reason_and_text(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event(), event(item=""), event(event_type="stare"), event(user="\tu")])
    tiny.ingest(AS_OF, "run-1")
    rejected = tiny.rows("select source_row, rule, reason, raw_text from quarantine.rows order by source_row")
    assert [row[:2] for row in rejected] == [
        (1, "item_id missing"),
        (2, "event type unknown"),
        (3, "user_id blank, padded or with control characters"),
    ]
    assert rejected[1][2] == "event type unknown: 1 of 4 new rows"
    assert json.loads(rejected[1][3])["event_type"] == "stare"
    quality = tiny.rows(
        "select rule, severity, success, failed from mart.quality where run_id = 'run-1' and not success"
    )
    assert ("event type unknown", "critical", False, 1) in quality
    assert len(quality) == 3


def test_a_warning_quarantines_nothing(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.deliver("interactions.csv", [event()])
    item = {
        "item_id": "i1",
        "valid_from": "2024-03-05",
        "valid_to": "2024-03-01",
        "brand": "",
        "tags": "",
        "price": "",
        "made": "",
    }
    tiny.deliver("items.csv", [item])
    assert tiny.ingest(AS_OF)["items.csv"] == {("loaded", None): 1}
    warned = tiny.rows("select rule, failed from mart.quality where not success and severity = 'warning'")
    assert warned == [("retired before launch", 1)]


def test_an_expectation_that_cannot_be_evaluated_is_no_pass(tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "ghost"}}]))
    with connect() as warehouse:
        warehouse.execute("create schema staging; create table staging.users as select 'u' as user_id")
        with pytest.raises(ExpectationError, match="could not be evaluated"):
            check(warehouse, "staging.users", suite, {}, [])


def test_a_critical_failure_of_staging_refuses_the_data(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event(at="2024-03-20 10:00:00")])
    tiny.ingest(AS_OF)
    build_staging(tiny.home, tiny.source, AS_OF)
    with pytest.raises(DataQualityError, match=r"staging\.interactions: no interaction is left"):
        validate_staging(tiny.home, tiny.source, AS_OF, "run-1")
    assert tiny.rows("select count(*) from mart.quality where rule = 'no interaction is left' and not success") == [
        (1,)
    ]


def test_stale_data_is_a_warning(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event(at="2024-01-20 10:00:00")])
    tiny.ingest(AS_OF)
    build_staging(tiny.home, tiny.source, AS_OF)
    failed = [result for result in validate_staging(tiny.home, tiny.source, AS_OF, "run-1") if not result["success"]]
    assert [(result["rule"], result["severity"]) for result in failed] == [
        ("newest event older than a week", "warning")
    ]


def test_every_delivered_table_has_a_suite_that_names_its_own_columns() -> None:
    for table, contract in CONTRACTS.items():
        for expectation in json.loads((SUITES / f"delivery.{table}.json").read_text()):
            columns = {value for name, value in expectation["kwargs"].items() if name.startswith("column")}
            assert columns <= {*contract, "raw_text"}
            assert expectation["severity"] in ("critical", "warning", "info")


def test_the_shop_and_its_delivery_pass_every_expectation_but_the_planted_dirt(
    tmp_path: Path, shop_files: Path
) -> None:
    from tasks.ingest import land
    from tasks.validate import validate_delivery

    home = tmp_path / "home"
    home.mkdir()
    source = load_source("shop")
    land(home, source, shop_files, date(2030, 1, 1))
    failed = {
        result["rule"] for result in validate_delivery(home, source, date(2030, 1, 1), "run-1") if not result["success"]
    }
    assert failed <= {"unreadable", "item_id missing", "value mostly given"}


@pytest.mark.parametrize(
    ("table", "row", "rule"),
    [
        ("users", {"user_id": ""}, "user_id missing"),
        ("users", {"valid_from": "1970-01-01"}, "valid_from before 1980"),
        ("items", {"item_id": " i"}, "item_id blank, padded or with control characters"),
        ("items", {"item_id": "i" * 300}, "item_id longer than 256 characters"),
        ("facts", {"subject": ""}, "subject missing"),
        ("facts", {"relation": " "}, "relation blank, padded or with control characters"),
        ("facts", {"object": ""}, "object missing"),
        ("links", {"other_user_id": ""}, "other_user_id missing"),
        ("links", {"strength": "-1"}, "strength negative or not finite"),
        ("links", {"strength": "nan"}, "strength negative or not finite"),
    ],
)
def test_broken_rows_of_every_table_are_quarantined(table: str, row: Row, rule: str, tmp_path: Path) -> None:
    good = {
        "users": {"user_id": "u1", "valid_from": "2024-01-01", "country": "", "age": ""},
        "items": dict.fromkeys(("valid_to", "brand", "tags", "price", "made"), "")
        | {"item_id": "i1", "valid_from": "2024-01-01"},
        "facts": {"subject": "i1", "relation": "made_by", "object": "acme", "since": ""},
        "links": {"user_id": "u1", "other_user_id": "u2", "relation": "friend", "strength": "1", "since": ""},
    }[table]
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", table))
    tiny.deliver("interactions.csv", [event()])
    tiny.deliver(f"{table}.csv", [good, good | row, good])
    assert tiny.ingest(AS_OF)[f"{table}.csv"] == {("loaded", None): 2, ("quarantined", rule): 1}
    assert tiny.rows("select table_name, source_row from quarantine.rows") == [(table, 1)]
    build_staging(tiny.home, tiny.source, AS_OF)
    assert tiny.rows(f"select count(*) > 0 from staging.{table}") == [(True,)]


@pytest.mark.parametrize(
    "suite", sorted(SUITES.glob("*[!t].json")), ids=lambda suite: suite.stem
)  # the shop has no context
def test_a_suite_parses_and_names_columns_that_exist(suite: Path, published: Published) -> None:
    import great_expectations as gx

    parsed = gx.ExpectationSuite(name=suite.stem, expectations=json.loads(suite.read_text()))
    assert len(parsed.expectations) == len(json.loads(suite.read_text())) > 0
    table = suite.stem.replace("delivery.", "delivery.new_")
    with open_warehouse(published.home) as warehouse:
        columns = {row[0] for row in warehouse.execute(f"describe {table}").fetchall()}
    for expectation in json.loads(suite.read_text()):
        named = {value for name, value in expectation["kwargs"].items() if name.startswith("column")}
        assert named <= columns


def test_every_expectation_of_a_run_is_recorded_with_what_it_checked(published: Published) -> None:
    run_id = published.summary["run_id"]
    with open_warehouse(published.home) as warehouse:
        query = "select table_name, count(*), min(checked) from mart.quality where run_id = $run_id group by all"
        recorded = {table: rows for table, *rows in warehouse.execute(query, {"run_id": run_id}).fetchall()}
    for suite in SUITES.glob("staging.*.json"):
        assert recorded[suite.stem][0] == len(json.loads(suite.read_text()))
    count, checked = recorded["delivery.new_interactions"]
    assert count == len(json.loads((SUITES / "delivery.interactions.json").read_text())) and checked > 0
    assert "scored.recommendations" in recorded

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
from tasks.warehouse import connect
from tests.tiny_source import event, tiny_source

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

"""Expectations on what was delivered (row by row, failing rows are quarantined) and on what was staged (as a whole)."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from tasks.contracts import contract_notes
from tasks.errors import DataQualityError
from tasks.ingest import landed
from tasks.sources import Source
from tasks.warehouse import SQL, append, exists, open_warehouse, scalar, select, set_variables

if TYPE_CHECKING:
    from tasks.expectations import Result

SUITES = SQL / "expectations"
QUALITY = pa.schema(
    [(name, pa.string()) for name in ("run_id", "table_name", "rule", "severity")]
    + [("success", pa.bool_()), ("checked", pa.int64()), ("failed", pa.int64())]
    + [("observed", pa.string()), ("failing_query", pa.string())]
)


def validate_delivery(home: Path, source: Source, as_of: date, run_id: str) -> list[dict[str, Any]]:
    """Checks new and changed rows; those that fail a critical expectation are named in `delivery.failures`.

    The results warn also of deferred rows so far ahead that their dates are most likely wrong.
    """
    from tasks.expectations import check

    results: list[Result] = []
    with open_warehouse(home) as warehouse:
        about_all = [_far_ahead(warehouse, as_of), *contract_notes(warehouse, source)]
        record(warehouse, about_all, run_id)
        for table in landed(warehouse):
            if not scalar(warehouse, f"select count(*) from delivery.new_{table}"):
                continue
            suite = SUITES / f"delivery.{table}.json"
            row_key = ["source_file", "source_row"]
            found = check(warehouse, f"delivery.new_{table}", suite, _parameters(source, as_of), row_key)
            record(warehouse, [vars(result) for result in found], run_id)
            for result in found:
                if result.severity == "critical" and not result.success:
                    _reject_rows(warehouse, table, result)
            results += found
    return about_all + [vars(result) for result in results]


def validate_staging(home: Path, source: Source, as_of: date, run_id: str) -> list[dict[str, Any]]:
    """Checks each `staging.*` table; raises `DataQualityError` when a critical expectation fails."""
    from tasks.expectations import check

    results: list[Result] = []
    with open_warehouse(home) as warehouse:
        for suite in sorted(SUITES.glob("staging.*.json")):
            if exists(warehouse, suite.stem):
                results += check(warehouse, suite.stem, suite, _parameters(source, as_of), [])
        record(warehouse, [vars(result) for result in results], run_id)
    for result in results:
        if result.severity == "critical" and not result.success:
            raise DataQualityError(_message(result, SUITES / f"{result.table_name}.json", run_id))
    return [vars(result) for result in results]


def _far_ahead(warehouse: DuckDBPyConnection, as_of: date) -> dict[str, Any]:
    files = select(warehouse, "delivery/far_ahead", as_of=as_of).to_pylist()
    rows = sum(file["row_count"] for file in files)
    told = [f"{file['table_name']}: {file['source_file']} from {file['first_date']}" for file in files[:3]]
    result = {"table_name": "delivery.counts", "rule": "deferred rows lie more than a year ahead of all others"}
    return result | {"severity": "warning", "success": not rows, "failed": rows, "observed": "; ".join(told) or None}


def _parameters(source: Source, as_of: date) -> dict[str, Any]:
    """What suites may refer to as {"$PARAMETER": name}."""
    fresh_after = as_of - timedelta(days=7)
    return {
        "as_of": as_of.isoformat(),
        "fresh_after": fresh_after.isoformat(),
        "event_types": list(source.event_strength),
    }


def _reject_rows(warehouse: DuckDBPyConnection, table: str, result: Result) -> None:
    """Names the failing rows for quarantine; a failure that is not about rows refuses the delivery."""
    if result.failing_query is None:
        raise DataQualityError(_message(result, SUITES / f"delivery.{table}.json", "this run"))
    reason = f"{result.rule}: {result.failed:,} of {result.checked:,} new rows"
    set_variables(warehouse, rule=result.rule, reason=reason)
    warehouse.execute(
        f"insert into delivery.failures select '{table}', source_file, source_row, getvariable('rule'), getvariable('reason')"
        f" from ({result.failing_query.rstrip().rstrip(';')})"
    )


def _message(result: Result, suite: Path, run_id: str) -> str:
    measured = f"{result.failed:,} of {result.checked:,} rows" if result.failed else f"found {result.observed}"
    found = f"{result.table_name}: {result.rule} failed ({measured})"
    return f"{found}; see mart.quality run {run_id}, then fix the delivery or {suite}"


def record(warehouse: DuckDBPyConnection, results: list[dict[str, Any]], run_id: str) -> None:
    """Appends results to `mart.quality`; keys a result lacks are null."""
    warehouse.register("results", pa.Table.from_pylist([{"run_id": run_id, **result} for result in results], QUALITY))
    append(warehouse, "mart.quality", "select * from results")
    warehouse.unregister("results")

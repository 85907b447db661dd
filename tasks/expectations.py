"""Great Expectations inside DuckDB. Import this module late: it costs seconds.

The library's generic SQL datasource fetches DuckDB rows after it has closed their connection. The subclass below keeps one
connection open: a cursor of the warehouse connection that the calling task holds, so nothing meets a file lock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import sqlalchemy as sa
from duckdb import DuckDBPyConnection
from duckdb_sqlalchemy import ConnectionWrapper
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import StaticPool

from tasks.errors import ExpectationError

logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it set INFO itself
_live: dict[str, DuckDBPyConnection] = {}  # the connection under validation, by the name in the connection string


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """Keeps its connection, and speaks PostgreSQL's dialect for regular expressions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dialect_module = postgresql

    @contextlib.contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        if getattr(self, "_held", None) is None:
            self._held = self.engine.connect()
        yield self._held


class DuckDBDatasource(SQLDatasource):
    """Reads the warehouse connection registered under the name in `duckdb://live/<name>`."""

    type: Literal["duckdb"] = "duckdb"  # pyright: ignore[reportIncompatibleVariableOverride]

    def _create_engine(self) -> sa.Engine:
        name = str(self.connection_string).removeprefix("duckdb://live/")
        return sa.create_engine(  # autocommit: one failed query must not abort the expectations after it
            "duckdb://",
            poolclass=StaticPool,
            isolation_level="AUTOCOMMIT",
            creator=lambda: ConnectionWrapper(_live[name].cursor()),
        )

    def get_execution_engine(self) -> SqlAlchemyExecutionEngine:
        if self._execution_engine is None:
            self._execution_engine = DuckDBExecutionEngine(engine=self.get_engine())
        return self._execution_engine  # pyright: ignore


@dataclass(frozen=True)
class Result:
    """What one expectation found on one table."""

    table_name: str
    rule: str  # short name, under which failing rows are quarantined
    severity: str  # critical, warning or info
    success: bool
    checked: int | None  # rows
    failed: int | None  # rows
    observed: str | None
    failing_query: str | None  # SELECT of the failing rows' keys, where the expectation is about single rows


def check(
    warehouse: DuckDBPyConnection, table: str, suite: Path, parameters: dict[str, Any], row_key: list[str]
) -> list[Result]:
    """Runs a suite file on a committed table; rows that fail are told by `row_key` columns (none when empty).

    Raises `ExpectationError` when an expectation errors: the library itself would call that a failed expectation.
    """
    _live["warehouse"] = warehouse
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}  # pyright: ignore
    schema, name = table.split(".")
    datasource = context.data_sources.add_duckdb("warehouse", connection_string="duckdb://live/warehouse")
    asset = datasource.add_table_asset(name=table, table_name=name, schema_name=schema)
    format = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
    if row_key:
        format |= {"unexpected_index_column_names": row_key, "return_unexpected_index_query": True}
    try:
        outcome = (
            asset.add_batch_definition_whole_table("all")
            .get_batch()
            .validate(
                gx.ExpectationSuite(name=suite.stem, expectations=json.loads(suite.read_text())),
                expectation_parameters=parameters,
                result_format=format,
            )
        )
    finally:
        datasource.get_execution_engine().close()
        datasource.get_engine().dispose()
        _live.clear()
    return [_read_result(table, result) for result in outcome.results]


def _read_result(table: str, result: Any) -> Result:
    config, found = result.expectation_config, result.result or {}
    raised = [info for info in _exceptions(result.exception_info or {}) if info.get("raised_exception")]
    if raised:
        reason = raised[0].get("exception_message")
        raise ExpectationError(f"{table}: {config.type} could not be evaluated: {reason}")
    what = config.type.removeprefix("expect_").removeprefix("column_values_to_")
    rule = (config.meta or {}).get("rule") or f"{config.kwargs.get('column', '')} {what}".strip()
    observed = found.get("observed_value")
    failed = observed if config.type == "unexpected_rows_expectation" else found.get("unexpected_count")
    return Result(
        table_name=table,
        rule=rule,
        severity=str(getattr(config.severity, "value", config.severity)),
        success=bool(result.success),
        checked=found.get("element_count"),
        failed=failed,
        observed=None if observed is None else str(observed),
        failing_query=found.get("unexpected_index_query"),
    )


def _exceptions(info: dict[str, Any]) -> list[dict[str, Any]]:
    """One exception comes flat, metric errors come keyed by metric."""
    return [info] if "raised_exception" in info else [value for value in info.values() if isinstance(value, dict)]

"""The last look at scored lists before they are published: promises about every row, limits on all rows together."""

from __future__ import annotations

from datetime import date
from math import isfinite
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from models.gate import Limit, Measured, limits, pays
from tasks.errors import AuditError, GateHeld
from tasks.runs import ensure_runs
from tasks.sources import Source
from tasks.validate import record
from tasks.warehouse import exists, open_warehouse, scalar, select, set_variables

LISTS = (
    "as_of date, list varchar, user_id varchar, rank integer, item_id varchar, score float, model varchar,"
    " reason varchar, reason_item_id varchar, run_id varchar"
)
Result = dict[str, Any]


def audit(home: Path, source: Source, as_of: date, top_k: int, run_id: str, hold: bool = True) -> list[Result]:
    """Checks `scored.*` against the graph and the last publications; returns what it recorded in `mart.quality`.

    Nothing is published after `AuditError`, a promise of the tables is broken, nor after `GateHeld`, a limit of the gate is.
    hold: false = broken limits are recorded as warnings and hold nothing back.
    """
    with open_warehouse(home) as warehouse:
        _ensure_tables(warehouse)
        set_variables(warehouse, as_of=as_of, top_k=top_k, repeats=source.repeats, horizon_days=source.horizon_days)
        promises = [
            {"table_name": "scored.recommendations", "rule": check["rule"], "severity": check["severity"]}
            | {"success": check["violations"] == 0, "failed": check["violations"]}
            for check in select(warehouse, "audit/lists").to_pylist()
        ]
        record(warehouse, promises, run_id)
        if broken := [f"{one['rule']} ({one['failed']:,} violations)" for one in _broken(promises)]:
            raise AuditError(
                f"lists for {as_of} are not published: {'; '.join(broken)}. The last publication is still served"
            )
        asked = _freshness(warehouse, source) + _figures(warehouse, source, as_of)
        for one in asked:
            one["severity"] = "critical" if hold else "warning"
        record(warehouse, asked, run_id)
        served = scalar(warehouse, "select max(as_of) from mart.publications")
    if crossed := [f"{one['rule']} is {one['observed']}" for one in _broken(asked)]:
        raise GateHeld(
            f"lists for {as_of} are held back: {'; '.join(crossed)}. "
            + (f"Those of {served} are still served. " if served else "Nothing is served yet. ")
            + f"See mart.quality run {run_id} and docs/gate.md; if the lists are right, change the limit in [gate] of "
            f"{source.folder / 'source.toml'}, or publish them this once with --publish-anyway"
        )
    return promises + asked


def _ensure_tables(warehouse: DuckDBPyConnection) -> None:
    """What the SELECTs read of earlier publications, empty before the first."""
    ensure_runs(warehouse)
    warehouse.execute(f"create table if not exists mart.recommendations ({LISTS})")
    for table in ("metrics", "gate"):
        if not exists(warehouse, f"mart.{table}"):
            warehouse.execute(f"create table mart.{table} as from scored.{table} limit 0")


def _broken(results: list[Result]) -> list[Result]:
    return [one for one in results if one["severity"] == "critical" and not one["success"]]


def _freshness(warehouse: DuckDBPyConnection, source: Source) -> list[Result]:
    """Whether the newest event is young enough for lists of today."""
    age = scalar(warehouse, "select min(age_days) from graph.interaction_edges")
    most = source.gate.max_age_days or max(14, 2 * source.horizon_days)
    result = {"table_name": "graph.interaction_edges", "rule": "age of the newest event"}
    return [result | {"success": age is None or age <= most, "observed": f"{age} days, at most {most}"}]


def _figures(warehouse: DuckDBPyConnection, source: Source, as_of: date) -> list[Result]:
    """Every figure of the lists, with what is asked of it."""
    chosen = _rankers(warehouse, "scored.gate where as_of = getvariable('as_of')")
    last = _rankers(
        warehouse,
        "mart.gate semi join mart.publications using (as_of, run_id)"
        " where as_of = (select max(as_of) from mart.publications where as_of < getvariable('as_of'))",
    )
    ndcg = select(warehouse, "audit/ndcg").to_pylist()
    past = select(warehouse, "audit/earlier").to_pylist()
    measured = _measured(warehouse, as_of)
    results = []
    for name in ("for_you", "discover") if source.repeats else ("discover",):
        ranker = chosen[name]
        judged = {row["ranker"]: row for row in ndcg if row["list"] == name}
        figures = measured.get(name, []) + [_ndcg(row) for row in judged.values() if _is_of(row, ranker, as_of)]
        earlier: dict[str, list[tuple[str, float]]] = {}
        for row in past:
            list_name, figure = row["rule"].split(": ", 1)
            if list_name == name and row["measured"] is not None:
                earlier.setdefault(figure, []).append((row["ranker"], row["measured"]))
        is_proven = pays(ranker, name, {by: row["ndcg"] for by, row in judged.items()})
        floors = source.gate.floors(name)
        asked = limits(name, ranker, figures, earlier, last.get(name), floors, source.gate.max_drop, is_proven)
        results += [_result(name, limit) for limit in asked]
    return results


def _rankers(warehouse: DuckDBPyConnection, rows: str) -> dict[str, str]:
    return dict(warehouse.execute(f"select list, ranker from {rows}").fetchall())


def _measured(warehouse: DuckDBPyConnection, as_of: date) -> dict[str, list[Measured]]:
    """The figures of each list that need no holdout."""
    last = scalar(warehouse, "select max(as_of) from mart.publications where as_of < $as_of", as_of=as_of)
    after = f"after {(as_of - last).days} days" if last else ""
    names = {name: f"{name} {after}" for name in ("overlap", "recognised")} if last else {}
    found: dict[str, list[Measured]] = {}
    for part in ("support", "reach", "changes", "fresh_repeats"):
        for row in select(warehouse, f"audit/{part}").to_pylist():
            value, error = row["measured"], row["error"] or 0.0
            value = value if value is not None and isfinite(value) else None
            name = names.get(row["measure"]) or row["measure"]
            figure = Measured(name, value, error, row["users"])
            found.setdefault(row["list"], []).append(figure)
    return found


def _is_of(row: Result, ranker: str, as_of: date) -> bool:
    return row["ranker"] == ranker and row["as_of"] == as_of


def _ndcg(row: Result) -> Measured:
    error = (row["ndcg"] * (1 - row["ndcg"]) / row["users"]) ** 0.5  # no figure between 0 and 1 varies more
    return Measured(f"ndcg@{row['k']}", row["ndcg"], error, row["users"])


def _result(list_name: str, limit: Limit) -> Result:
    figure = limit.measured
    observed = "nothing to measure" if figure.value is None else f"{figure.value:.4g}"
    if figure.value is not None and limit.least is not None:
        observed += f", at least {limit.least:.4g} ({limit.basis})"
    result = {"table_name": "scored.recommendations", "rule": f"{list_name}: {figure.name}"}
    return result | {"success": limit.is_kept, "checked": figure.users, "observed": observed}

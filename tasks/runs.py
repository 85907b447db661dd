"""The record of runs: who runs, on what, with which code, and how it ended."""

from __future__ import annotations

import hashlib
import json
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.errors import harmless
from tasks.ingest import source_snapshot
from tasks.sources import Source
from tasks.warehouse import SQL, exists, open_warehouse, read_select, scalar, transaction

RUNS = (
    "run_id varchar, source varchar, as_of date, status varchar, started_at timestamp, finished_at timestamp,"
    " input varchar, source_snapshot varchar, code_version varchar, config varchar, model_version varchar,"
    " user_count bigint, item_count bigint, event_count bigint, seconds map(varchar, double), message varchar,"
    " known_at timestamp, published_at timestamp, withdrawn_at timestamp, stale_since timestamp"
)


def ensure_runs(warehouse: DuckDBPyConnection) -> None:
    """Makes `mart.runs`, or adds the columns that one of an earlier version lacks, and the view `mart.publications`."""
    warehouse.execute(f"create table if not exists mart.runs ({RUNS})")
    for column in RUNS.replace("map(varchar, double)", "map").split(", "):
        name, kind = column.strip().split(" ", 1)
        kind = "map(varchar, double)" if kind == "map" else kind
        warehouse.execute(f"alter table mart.runs add column if not exists {name} {kind}")
    publications = read_select(SQL / "mart/publications.sql", warehouse)
    warehouse.execute(f"create or replace view mart.publications as {publications}")


def close_killed(home: Path, at: datetime) -> None:
    """Marks the runs that never closed their row: they were killed. Call it first, before this run opens its own."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        ensure_runs(warehouse)
        warehouse.execute(
            "update mart.runs set status = 'killed', finished_at = $at where status = 'running'", {"at": at}
        )


def start_run(
    home: Path, source: Source, input_root: Path, as_of: date, run_id: str, at: datetime, config: dict
) -> None:
    """Opens the run's row."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        warehouse.execute(
            "insert into mart.runs by name select $run_id as run_id, $source as source, $as_of as as_of, 'running' as status,"
            " $at as started_at, $input as input, $code as code_version, $config as config",
            {
                "run_id": run_id,
                "source": source.name,
                "as_of": as_of,
                "at": at,
                "input": str(input_root),
                "code": code_version(),
                "config": json.dumps(config, default=str),
            },
        )


def describe_run(home: Path, as_of: date, run_id: str, known_at: datetime | None = None) -> str:
    """Adds to the run's row what it rests on, before anything is published; returns the snapshot of its source."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        counts = {
            "user_count": "select count(*) from graph.user_nodes",
            "item_count": "select count(*) from graph.item_nodes",
            "event_count": "select count(*) from graph.interaction_edges",
        }
        columns = {name: scalar(warehouse, query) for name, query in counts.items()}
        columns |= {
            "source_snapshot": source_snapshot(warehouse, as_of, known_at),
            "known_at": known_at,
        }
        _update(warehouse, run_id, columns)
        return columns["source_snapshot"]


def name_model(home: Path, run_id: str, version: str) -> None:
    """Adds to the run's row which model makes its lists."""
    with open_warehouse(home) as warehouse:
        _update(warehouse, run_id, {"model_version": version})


def mark_stale(home: Path, at: datetime) -> list[date]:
    """Marks the published dates whose data are no longer those they rest on, unmarks the others; returns the stale ones."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        ensure_runs(warehouse)
        published = warehouse.execute(
            "select as_of, run_id, source_snapshot, known_at from mart.runs"
            " where (as_of, run_id) in (select (as_of, run_id) from mart.publications) order by as_of"
        ).fetchall()
        stale = [
            (as_of, run_id)
            for as_of, run_id, snapshot, known_at in published
            if source_snapshot(warehouse, as_of, known_at) != snapshot
        ]
        warehouse.execute(
            "update mart.runs set stale_since = case when list_contains($runs, run_id) then coalesce(stale_since, $at) end",
            {"runs": [run_id for _, run_id in stale], "at": at},
        )
    return [as_of for as_of, _ in stale]


def finish_run(
    home: Path,
    run_id: str,
    status: str,
    at: datetime,
    seconds: dict[str, float],
    message: str | None,
) -> None:
    """Closes the run's row: status is published, loaded (nothing but data), held, refused, failed or cancelled."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        _update(warehouse, run_id, {"finished_at": at, "message": message and harmless(message)})
        warehouse.execute(  # what readers already see stays published, whatever failed after
            "update mart.runs set status = $status where run_id = $run_id and published_at is null",
            {"status": status, "run_id": run_id},
        )
        names, values = list(seconds), list(seconds.values())
        warehouse.execute(
            "update mart.runs set seconds = map($names::varchar[], $values::double[]) where run_id = $run_id",
            {"names": names, "values": values, "run_id": run_id},
        )


def stale_dates(home: Path) -> list[date]:
    """The published dates whose data have changed since."""
    query = "select as_of from mart.publications join mart.runs using (as_of, run_id) where stale_since is not null order by 1"
    with open_warehouse(home) as warehouse:
        return [as_of for (as_of,) in warehouse.execute(query).fetchall()]


def finished_dates(home: Path) -> list[date]:
    """The dates that were published, withdrawn ones among them: these come back only when asked for."""
    with open_warehouse(home) as warehouse:
        query = "select distinct as_of from mart.runs where status = 'published' order by 1"
        return [as_of for (as_of,) in warehouse.execute(query).fetchall()]


def newest_publication(home: Path) -> date | None:
    """The newest date that is served."""
    with open_warehouse(home) as warehouse:
        return scalar(warehouse, "select max(as_of) from mart.publications")


def recent_runs(home: Path, count: int) -> list[dict[str, Any]]:
    """The newest runs of a home, newest first."""
    with open_warehouse(home) as warehouse:
        if not exists(warehouse, "mart.runs"):
            return []
        query = "select * from mart.runs order by started_at desc limit $count"
        return warehouse.sql(query, params={"count": count}).to_arrow_table().to_pylist()


def code_version(*folders: str) -> str:
    """The installed version and a hash of the Python and SQL that runs, or of that in some of the folders."""
    root = SQL.parent
    digest = hashlib.sha256()
    for folder in folders or ("flows", "tasks", "models", "sql"):
        for file in sorted((root / folder).rglob("*.[ps][yq]*")):
            if "__pycache__" not in file.parts:
                digest.update(file.read_bytes())
    return f"{version('almanac')}+{digest.hexdigest()[:12]}"


def digest(*parts: object) -> str:
    """Twelve hexadecimal digits that equal parts share."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]


def _update(warehouse: DuckDBPyConnection, run_id: str, columns: dict[str, Any]) -> None:
    for column, value in columns.items():
        warehouse.execute(
            f"update mart.runs set {column} = $value where run_id = $run_id", {"value": value, "run_id": run_id}
        )

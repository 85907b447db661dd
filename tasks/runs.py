"""The record of runs: who runs, on what, with which code, and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.errors import ContractError, RunError, UsageError
from tasks.ingest import source_snapshot
from tasks.sources import Source
from tasks.warehouse import SQL, exists, open_warehouse, read_home, scalar, storing, transaction

RUNS = (
    "run_id varchar, source varchar, as_of date, status varchar, started_at timestamp, finished_at timestamp,"
    " input varchar, source_snapshot varchar, code_version varchar, config varchar, model_version varchar,"
    " user_count bigint, item_count bigint, event_count bigint, seconds map(varchar, double), message varchar"
)


def check_request(home: Path, source: Source, input_root: Path) -> None:
    """Raises before anything is made: `ContractError` without a readable input folder, `RunError` without a writable home,
    `UsageError` for a home of another source.
    """
    if not os.path.isdir(input_root):
        raise ContractError(
            f"{input_root} is no folder; --input takes the folder that holds the files of {source.name}"
        )
    if not os.access(input_root, os.R_OK | os.X_OK):
        raise ContractError(f"{input_root} cannot be read by this user; let it read the folder and the files in it")
    place = next(path for path in (home, *home.parents) if os.path.exists(path))
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise RunError(
            f"{place} cannot be written by this user; let it write there, or choose another place with --home"
        )
    held = read_home(home)
    if held and (held["source"], held["input"]) != (source.name, str(input_root)):
        raise UsageError(
            f"{home} belongs to source {held['source']} with input {held['input']}; "
            f"give this one its own: --home .almanac-{source.name}"
        )


def claim_home(home: Path, source: Source, input_root: Path, memory_limit: str, temp_directory: Path | None) -> None:
    """Binds a home to one source and one input root, once `check_request` has passed.

    DuckDB's memory limit and spill folder are recorded with it: every later step and command on the home uses them.
    """
    claim = {"source": source.name, "input": str(input_root)}
    claim["memory_limit"] = memory_limit
    if temp_directory:
        claim["temp_directory"] = str(temp_directory.resolve())
    partial = home / "home.json.partial"
    with storing(home):
        partial.write_text(json.dumps(claim, indent=2) + "\n")
        os.replace(partial, home / "home.json")


def start_run(
    home: Path, source: Source, input_root: Path, as_of: date, run_id: str, at: datetime, config: dict
) -> None:
    """Opens the run's row; runs that never closed theirs were killed and are marked so."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        warehouse.execute(f"create table if not exists mart.runs ({RUNS})")
        warehouse.execute(
            "update mart.runs set status = 'killed', finished_at = $at where status = 'running'", {"at": at}
        )
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


def describe_run(home: Path, as_of: date, run_id: str) -> None:
    """Adds to the run's row what it rests on, before anything is published."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        counts = {
            "user_count": "select count(*) from graph.user_nodes",
            "item_count": "select count(*) from graph.item_nodes",
            "event_count": "select count(*) from graph.interaction_edges",
        }
        columns = {name: scalar(warehouse, query) for name, query in counts.items()}
        columns["source_snapshot"] = source_snapshot(warehouse, as_of)
        _update(warehouse, run_id, columns)


def finish_run(
    home: Path,
    run_id: str,
    status: str,
    at: datetime,
    seconds: dict[str, float],
    model_version: str | None,
    message: str | None,
) -> None:
    """Closes the run's row: status is published, refused or failed."""
    with open_warehouse(home) as warehouse, transaction(warehouse):
        _update(
            warehouse, run_id, {"status": status, "finished_at": at, "model_version": model_version, "message": message}
        )
        names, values = list(seconds), list(seconds.values())
        warehouse.execute(
            "update mart.runs set seconds = map($names::varchar[], $values::double[]) where run_id = $run_id",
            {"names": names, "values": values, "run_id": run_id},
        )


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

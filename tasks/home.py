"""A home: whose it is, in which shape its tables are, and how one of an earlier version is brought up to date."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

from tasks.errors import ContractError, RunError, UsageError
from tasks.ingest import ensure_deliveries
from tasks.runs import ensure_runs
from tasks.sources import Source
from tasks.warehouse import exists, open_warehouse, read_home, storing, transaction

OPEN_FILES = 64  # that a run needs at once; short of them Prefect's event loop may wait for ever
SCHEMA_VERSION = 2  # of the durable tables; 1: before withdrawals, stale dates and the registry of models


def check_request(home: Path, source: Source, input_root: Path) -> None:
    """Raises before anything is made: `ContractError` without a readable input folder, `RunError` without a writable home
    or too few open files, `UsageError` for a home of another source and a path that would be taken for a pattern.
    """
    if 0 <= (most := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < OPEN_FILES:
        raise RunError(f"only {most} files can be open at once, and a run needs {OPEN_FILES}: ulimit -n 1024")
    if not os.path.isdir(input_root):
        raise ContractError(
            f"{input_root} is no folder; --input takes the folder that holds the files of {source.name}"
        )
    if not os.access(input_root, os.R_OK | os.X_OK):
        raise ContractError(f"{input_root} cannot be read by this user; let it read the folder and the files in it")
    for path in (input_root, home):
        if set("*?[") & set(str(path)):
            raise UsageError(
                f"{path} holds *, ? or [, which the names of files are matched by; take a path without them"
            )
    place = next(path for path in (home, *home.parents) if os.path.exists(path))
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise RunError(
            f"{place} cannot be written by this user; let it write there, or choose another place with --home"
        )
    held = read_home(home)
    if held and int(held.get("schema_version", 1)) > SCHEMA_VERSION:
        raise UsageError(
            f"{home} was written by a newer Almanac (its schema is {held['schema_version']}, this one knows {SCHEMA_VERSION}); "
            "install that version, or choose another --home"
        )
    if held and (held["source"], held["input"]) != (source.name, str(input_root)):
        raise UsageError(
            f"{home} belongs to source {held['source']} with input {held['input']}; "
            f"give this one its own: --home .almanac-{source.name}"
        )


def claim_home(home: Path, source: Source, input_root: Path, memory_limit: str, temp_directory: Path | None) -> None:
    """Binds a home to one source and one input root, once `check_request` has passed.

    DuckDB's memory limit and spill folder are recorded with it: every later step and command on the home uses them.
    """
    claim: dict[str, Any] = {"source": source.name, "input": str(input_root), "schema_version": SCHEMA_VERSION}
    claim["memory_limit"] = memory_limit
    if temp_directory:
        claim["temp_directory"] = str(temp_directory.resolve())
    partial = home / "home.json.partial"
    if (home / "warehouse.duckdb").exists():
        migrate(home)
    with storing(home):
        partial.write_text(json.dumps(claim, indent=2) + "\n")
        os.replace(partial, home / "home.json")


def migrate(home: Path) -> None:
    """Brings the durable tables of a home of an earlier schema up to date, all or nothing; twice does no more than once."""
    if int(read_home(home).get("schema_version", 1)) >= SCHEMA_VERSION:
        return
    with open_warehouse(home) as warehouse, transaction(warehouse):
        if exists(warehouse, "raw.deliveries"):
            ensure_deliveries(warehouse)
        if exists(warehouse, "mart.runs"):
            from tasks.registry import ensure_registry  # takes torch along

            ensure_runs(warehouse)
            ensure_registry(warehouse)
            if exists(warehouse, "mart.gate"):
                warehouse.execute(
                    "update mart.runs set status = 'replaced'"
                    " where status = 'published' and (as_of, run_id) not in (select (as_of, run_id) from mart.gate)"
                )
            warehouse.execute(
                "update mart.runs set published_at = finished_at where status = 'published' and published_at is null"
            )

"""From scored lists to what readers see: audit, warehouse history, a fresh serving file behind a symlink, Parquet."""

from __future__ import annotations

import os
import time
import tomllib
from datetime import date, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.errors import AuditError
from tasks.sources import Source
from tasks.validate import record
from tasks.warehouse import (
    SQL,
    connect,
    exists,
    open_warehouse,
    read_select,
    replace_partition,
    scalar,
    select,
    set_variables,
    transaction,
)

PUBLISHED = ("recommendations", "item_recommendations", "metrics", "gate")
VIEWS = ("current_recommendations", "recommendations_history", "similar_items", "latest_runs")
STORAGE_VERSION = "v1.4.0"  # so that DuckDB clients from 1.4 on can read the file
KEPT_VERSIONS = 14
GRACE = timedelta(days=1)  # in which a version that is no longer served stays for readers that have it open
RECOMMENDATIONS = "as_of, list, user_id, rank, item_id, score, model, reason, reason_item_id, run_id"


def audit(home: Path, source: Source, as_of: date, top_k: int, run_id: str) -> list[dict]:
    """Checks `scored.*` against the graph; raises `AuditError` before anything is published when a promise is broken."""
    with open_warehouse(home) as warehouse:
        _ensure_mart(warehouse)
        set_variables(warehouse, as_of=as_of, top_k=top_k, repeats=source.repeats)
        results = [
            {"table_name": "scored.recommendations", "rule": check["rule"], "severity": check["severity"]}
            | {"success": check["violations"] == 0, "failed": check["violations"]}
            for check in select(warehouse, "audit/lists").to_pylist()
        ]
        record(warehouse, results, run_id)
    broken = [
        f"{result['rule']} ({result['failed']:,} violations)"
        for result in results
        if result["severity"] == "critical" and not result["success"]
    ]
    if broken:
        raise AuditError(
            f"lists for {as_of} are not published: {'; '.join(broken)}. The last publication is still served"
        )
    return results


def publish(home: Path, source: Source, as_of: date, run_id: str, history_days: int) -> dict[str, int]:
    """Makes the audited lists the published ones of `as_of`; returns rows published by list.

    A reader sees the old version until the symlink `serving/almanac.duckdb` moves, then the new one; never a part.
    """
    with open_warehouse(home) as warehouse:
        _preview(warehouse, as_of, run_id)
        file = _build_serving_file(warehouse, home, as_of, run_id, history_days)
        with transaction(warehouse):
            for table in PUBLISHED:
                rows = f"select * from next_{table} where as_of = date '{as_of}' order by all"
                replace_partition(warehouse, f"mart.{table}", rows, as_of=as_of)
        _write_parquet(warehouse, home, as_of)
        per_list = (
            "select list, count(*) from mart.recommendations where as_of = $as_of group by list order by list desc"
        )
        counts = warehouse.execute(per_list, {"as_of": as_of}).fetchall()
    _swap(file)
    _prune(home / "serving")
    return dict(counts)


def _ensure_mart(warehouse: DuckDBPyConnection) -> None:
    warehouse.execute(
        "create table if not exists mart.recommendations (as_of date, list varchar, user_id varchar, rank integer,"
        " item_id varchar, score float, model varchar, reason varchar, reason_item_id varchar, run_id varchar)"
    )


def _preview(warehouse: DuckDBPyConnection, as_of: date, run_id: str) -> None:
    """Temporary views `next_<table>`: what `mart.<table>` will hold once the scored rows of `as_of` are published."""
    for table in PUBLISHED:
        rows = f"select * replace ('{run_id}' as run_id) from scored.{table} where as_of = date '{as_of}'"
        if exists(warehouse, f"mart.{table}"):
            rows += f" union all by name select * from mart.{table} where as_of != date '{as_of}'"
        warehouse.execute(f"create or replace temp view next_{table} as {rows}")


def _build_serving_file(warehouse: DuckDBPyConnection, home: Path, as_of: date, run_id: str, history_days: int) -> Path:
    """A closed, checkpointed, fsynced DuckDB file with the last `history_days` days and the documented views."""
    folder = home / "serving"
    folder.mkdir(exist_ok=True)
    file = folder / "next.duckdb"  # a retried run may already be served under its own name
    for leftover in (file, file.with_name(f"{file.name}.wal")):
        leftover.unlink(missing_ok=True)
    warehouse.execute(
        f"attach '{str(file).replace(chr(39), chr(39) * 2)}' as serving (storage_version '{STORAGE_VERSION}')"
    )
    newest = scalar(warehouse, "select max(as_of) from next_recommendations")
    since = newest - timedelta(days=history_days)
    for table in ("recommendations", "item_recommendations"):
        kept = f"select * from next_{table} where as_of > $since order by all"
        warehouse.execute(f"create table serving.{table} as {kept}", {"since": since})
    runs = read_select(SQL / "mart/published_runs.sql", warehouse)
    warehouse.execute(f"create table serving.runs as {runs}")
    _create_views(warehouse)
    warehouse.execute("checkpoint serving")
    warehouse.execute("detach serving")
    if file.with_name(f"{file.name}.wal").exists():
        raise AuditError(f"{file} was not checkpointed; it is not published")
    _check_serving_file(file, as_of if as_of > since else newest)  # an old backfill is in Parquet only
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return file.replace(folder / f"almanac-{as_of}-{run_id}.duckdb")


def _create_views(warehouse: DuckDBPyConnection) -> None:
    comments = tomllib.loads((SQL / "serving/comments.toml").read_text())
    home_catalog = scalar(warehouse, "select current_database()")
    warehouse.execute("use serving")
    for view in VIEWS:
        path = SQL / "serving" / f"{view}.sql"
        warehouse.execute(f"create view {view} as {read_select(path, warehouse)}")
        warehouse.execute(
            f"comment on view {view} is '{_sql_text(path.read_text().splitlines()[0].removeprefix('-- '))}'"
        )
        for column, *_ in warehouse.execute(f"describe {view}").fetchall():
            warehouse.execute(f"comment on column {view}.{column} is '{_sql_text(comments[column])}'")
    warehouse.execute(f"use {home_catalog}")


def _sql_text(text: str) -> str:
    return text.replace("'", "''")


def _check_serving_file(file: Path, as_of: date) -> None:
    """Opens the file as a reader would."""
    with connect(file, read_only=True) as reader:
        rows = scalar(reader, "select count(*) from recommendations_history where as_of = $as_of", as_of=as_of)
        if not rows or not scalar(reader, "select count(*) from current_recommendations"):
            raise AuditError(f"{file} shows no lists for {as_of}; it is not published")


def _write_parquet(warehouse: DuckDBPyConnection, home: Path, as_of: date) -> None:
    """One Parquet file per date, replaced atomically."""
    folder = home / "serving" / "recommendations" / f"as_of={as_of}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "recommendations.parquet.partial"
    rows = warehouse.sql(
        f"select {RECOMMENDATIONS} from mart.recommendations where as_of = $as_of order by list, user_id, rank",
        params={"as_of": as_of},
    )
    rows.write_parquet(str(partial), compression="zstd")
    os.replace(partial, folder / "recommendations.parquet")


def _swap(file: Path) -> None:
    link = file.with_name("almanac.duckdb")
    partial = file.with_name("almanac.duckdb.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(file.name)
    os.replace(partial, link)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _prune(folder: Path) -> None:
    """Removes old versions, never the served one nor one younger than the grace period."""
    served = (folder / "almanac.duckdb").resolve()
    files = sorted(folder.glob("almanac-*.duckdb"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[KEPT_VERSIONS:]:
        if file.resolve() != served and time.time() - file.stat().st_mtime > GRACE.total_seconds():
            file.unlink()

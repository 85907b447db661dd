"""The files that readers open: a fresh DuckDB file behind a symlink, its documented views, Parquet of every date."""

from __future__ import annotations

import os
import time
import tomllib
from datetime import date, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.errors import AuditError
from tasks.warehouse import SQL, connect, read_select, scalar

VIEWS = ("current_recommendations", "recommendations_history", "similar_items", "latest_runs")
STORAGE_VERSION = "v1.4.0"  # so that DuckDB clients from 1.4 on can read the file
KEPT_VERSIONS = 14
GRACE = timedelta(days=1)  # in which a version that is no longer served stays for readers that have it open
RECOMMENDATIONS = "as_of, list, user_id, rank, item_id, score, model, reason, reason_item_id, run_id"


def build_serving_file(warehouse: DuckDBPyConnection, home: Path, as_of: date, run_id: str, history_days: int) -> Path:
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


def write_parquet(warehouse: DuckDBPyConnection, home: Path, as_of: date) -> None:
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


def swap(file: Path) -> None:
    link = file.with_name("almanac.duckdb")
    partial = file.with_name("almanac.duckdb.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(file.name)
    os.replace(partial, link)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def prune(folder: Path) -> None:
    """Removes old versions, never the served one nor one younger than the grace period."""
    served = (folder / "almanac.duckdb").resolve()
    files = sorted(folder.glob("almanac-*.duckdb"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[KEPT_VERSIONS:]:
        if file.resolve() != served and time.time() - file.stat().st_mtime > GRACE.total_seconds():
            file.unlink()

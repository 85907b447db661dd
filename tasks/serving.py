"""The files that readers open: a fresh DuckDB file behind a symlink, its documented views, Parquet of every date."""

from __future__ import annotations

import os
import shutil
import time
import tomllib
from contextlib import suppress
from datetime import date, timedelta
from itertools import product
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from tasks.errors import AlmanacError, AuditError
from tasks.warehouse import SQL, connect, exists, quoted, read_select, scalar, set_variables, transaction

VIEWS = (
    "current_recommendations",
    "recommendations_history",
    "recommendation_changes",
    "item_reach",
    "similar_items",
    "quality_daily",
    "latest_runs",
    "run_log",
)
SCORED = ("recommendations", "item_recommendations")
BY_DATE = (*SCORED, "reach")  # too large to be sorted; filled date by date
WHOLE = ("runs", "run_history", "quality")
TABLES = BY_DATE + WHOLE
STORAGE_VERSION = "v1.4.0"  # so that DuckDB clients from 1.4 on can read the file
KEPT_VERSIONS = 14
GRACE = timedelta(days=1)  # in which a version that is no longer served stays for readers that have it open
LEAST_GRACE = timedelta(minutes=10)
RECOMMENDATIONS = "as_of, list, user_id, rank, item_id, score, model, reason, reason_item_id, run_id"
REALISED = "as_of date, list varchar, run_id varchar, metric varchar, k bigint, value double, users bigint"


def build_serving_file(
    warehouse: DuckDBPyConnection, home: Path, as_of: date, run_id: str, history_days: int, base: Path | None = None
) -> Path:
    """A closed, checkpointed, fsynced DuckDB file with the last `history_days` days and the documented views.

    Its rows are those of the temporary views `next_recommendations`, `next_item_recommendations`, `next_metrics` and
    `next_gate`; `run_id` is the run that publishes it. A `base`, a version on disk, is copied and only dates from the first
    one that differs are written anew. Raises `AuditError` where it shows no lists.
    """
    folder = home / "serving"
    folder.mkdir(exist_ok=True)
    file = folder / "next.duckdb"  # a retried run may already be served under its own name
    dates = [day for (day,) in warehouse.execute("select distinct as_of from next_gate order by as_of").fetchall()]
    since = max(dates, default=as_of) - timedelta(days=history_days)
    _see_realised(warehouse)
    set_variables(warehouse, since=since, run_id=run_id)
    dates = [day for day in dates if day > since]
    kept = _attach_copy(warehouse, file, base) if base else []
    if not kept:
        _attach(warehouse, file)
    _fill_tables(warehouse, [day for day in dates if day not in kept])
    _create_views(warehouse)
    warehouse.execute("checkpoint serving")
    warehouse.execute("detach serving")
    if file.with_name(f"{file.name}.wal").exists():
        raise AuditError(f"{file} was not checkpointed; it is not published")
    _check_serving_file(file, as_of if as_of > since else max(dates))  # an old backfill is in Parquet only
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return file.replace(folder / f"almanac-{as_of}-{run_id}.duckdb")


def _attach(warehouse: DuckDBPyConnection, file: Path, copied: Path | None = None) -> None:
    """As `serving`: a new file, or a copy."""
    warehouse.execute("detach database if exists serving")
    for leftover in (file, file.with_name(f"{file.name}.wal")):
        leftover.unlink(missing_ok=True)
    if copied:
        shutil.copyfile(copied, file)
    warehouse.execute(f"attach {sql_text(str(file))} as serving (storage_version '{STORAGE_VERSION}')")


def _attach_copy(warehouse: DuckDBPyConnection, file: Path, base: Path) -> list[date]:
    """Attaches a copy cut down to the dates it holds as they are wanted, up to the first that differs; none: of no use."""
    with suppress(OSError, duckdb.Error):  # not there, or damaged
        _attach(warehouse, file, base)
        if kept := _dates_in_common(warehouse):
            bounds = {"first": kept[0], "last": kept[-1]}
            for table in BY_DATE:
                warehouse.execute(f"delete from serving.{table} where as_of not between $first and $last", bounds)
            return kept
    return []


def _dates_in_common(warehouse: DuckDBPyConnection) -> list[date]:
    """The kept dates before the first whose rows differ; none where names or columns do. Reads every row of the copy."""
    named = "select table_name from information_schema.tables where table_catalog = 'serving'"
    if not {name for (name,) in warehouse.execute(named).fetchall()} <= {*TABLES, *VIEWS}:  # of another release
        return []
    dates, different = set(), set()
    for table in BY_DATE:
        here, there = (
            warehouse.execute(f"describe {rows}").fetchall() for rows in (_rows(warehouse, table), f"serving.{table}")
        )
        if here != there:
            return []
        columns = ", ".join(quoted(column) for column, *_ in here)
        content = (
            f"select as_of, count(*), sum(hash({columns})) from {{}} where as_of > getvariable('since') group by 1"
        )
        copied = set(warehouse.execute(content.format(f"serving.{table}")).fetchall())
        dates |= {row[0] for row in copied}
        if table in SCORED:
            different |= {row[0] for row in copied ^ set(warehouse.execute(content.format(f"next_{table}")).fetchall())}
    return sorted(day for day in dates if not different or day < min(different))


def _see_realised(warehouse: DuckDBPyConnection) -> None:
    """`past_realised`: `mart.realised`, or nothing before the first horizon is over."""
    rows = "from mart.realised" if exists(warehouse, "mart.realised") else "from no_realised"
    warehouse.execute(f"create or replace temp table no_realised ({REALISED}, measured_at timestamp)")
    warehouse.execute(f"create or replace temp view past_realised as {rows}")


def _fill_tables(warehouse: DuckDBPyConnection, dates: list[date]) -> None:
    queries = {table: _rows(warehouse, table) for table in TABLES}
    # made before the transaction: DuckDB 2.0.0 hides the rows of a large insert into a table made empty in the same one
    for table in BY_DATE:
        warehouse.execute(f"create table if not exists serving.{table} as {queries[table]} limit 0")
    with transaction(warehouse):
        for day, table in product(dates, BY_DATE):
            set_variables(warehouse, as_of=day)
            warehouse.execute(f"insert into serving.{table} {queries[table]}")
        for table in WHOLE:
            warehouse.execute(f"create or replace table serving.{table} as {queries[table]}")


def _rows(warehouse: DuckDBPyConnection, table: str) -> str:
    """The query that a serving table is filled from."""
    return read_select(SQL / f"serving/tables/{table}.sql", warehouse)


def _create_views(warehouse: DuckDBPyConnection) -> None:
    home_catalog = scalar(warehouse, "select current_database()")
    comments = tomllib.loads((SQL / "serving/comments.toml").read_text())
    warehouse.execute("use serving")
    with transaction(warehouse):
        for view in VIEWS:
            warehouse.execute(f"create or replace view {view} as {read_select(SQL / f'serving/{view}.sql', warehouse)}")
            warehouse.execute(f"comment on view {view} is {sql_text(title(view))}")
            for column, *_ in warehouse.execute(f"describe {view}").fetchall():
                warehouse.execute(f"comment on column {view}.{quoted(column)} is {sql_text(comments[column])}")
    warehouse.execute(f"use {quoted(home_catalog)}")


def title(view: str) -> str:
    """What a view answers: the first line of its file."""
    return (SQL / f"serving/{view}.sql").read_text().splitlines()[0].removeprefix("-- ")


def sql_text(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


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


def is_parquet_of(warehouse: DuckDBPyConnection, home: Path, as_of: date, run_id: str) -> bool:
    """Whether the date's Parquet file is there, can be read to its end and is of that run."""
    file = home / "serving" / "recommendations" / f"as_of={as_of}" / "recommendations.parquet"
    try:
        found = warehouse.execute("select min(run_id), max(run_id) from read_parquet($file)", {"file": str(file)})
        return found.fetchall() == [(run_id, run_id)]
    except duckdb.Error:
        return False


def swap(file: Path) -> None:
    """Makes a version the served one, at once; the grace period of the one before begins."""
    link = file.with_name("almanac.duckdb")
    if link.exists():
        os.utime(link)
    partial = file.with_name("almanac.duckdb.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(file.name)
    os.replace(partial, link)
    folder = os.open(file.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def prune(folder: Path, keep: int = KEPT_VERSIONS, grace: timedelta = GRACE) -> list[Path]:
    """Removes all versions but the `keep` last served ones, the served one and those within their grace; returns them.

    A version's grace begins when its service ends (anew after a rollback to it) and is as long as that was, at least
    `LEAST_GRACE` and at most `grace`: a day for a daily run's, minutes for those that a backfill goes through.
    """
    served = (folder / "almanac.duckdb").resolve()
    ended = {file: file.stat().st_mtime for file in folder.glob("almanac-*.duckdb")}
    files = sorted(ended, key=ended.__getitem__, reverse=True)
    begun = dict(zip(files, [ended[file] for file in files[1:]] + [0.0], strict=True))

    def is_over(file: Path) -> bool:
        service = max(ended[file] - begun[file], LEAST_GRACE.total_seconds())
        return ended[file] + min(service, grace.total_seconds()) < time.time()

    old = [file for file in files[keep:] if file.resolve() != served and is_over(file)]
    for file in old:
        file.unlink()
    return old


def is_readable(file: Path) -> bool:
    """Whether a kept version is whole and has the views of today, so that it can be served again."""
    views = "select count(*) from duckdb_views() where not internal and list_contains($views, view_name)"
    try:
        with connect(file, read_only=True) as reader:
            complete = scalar(reader, views, views=list(VIEWS)) == len(VIEWS)
            return complete and bool(scalar(reader, "select count(*) from current_recommendations"))
    except (AlmanacError, duckdb.Error):
        return False

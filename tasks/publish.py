"""Makes audited lists the published ones, withdraws them again, and makes good what a killed run left between the two."""

from __future__ import annotations

import logging
import shutil
from datetime import date, datetime
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.errors import RunError, UsageError
from tasks.runs import digest
from tasks.serving import build_serving_file, is_parquet_of, is_readable, prune, swap, write_parquet
from tasks.warehouse import exists, open_warehouse, replace_partition, storing, transaction

PUBLISHED = ("recommendations", "item_recommendations", "metrics", "gate")
LINK = "almanac.duckdb"
logger = logging.getLogger("almanac")
Publications = dict[date, str]  # date → run


def publish(
    home: Path, as_of: date, run_id: str, at: datetime, history_days: int, postgres: str | None = None
) -> dict[str, int]:
    """Makes the audited lists the published ones of `as_of`; returns rows published by list.

    A reader sees the old version until the symlink `serving/almanac.duckdb` moves, then the new one; never a part.
    """
    with open_warehouse(home) as warehouse:
        _preview(warehouse, as_of, run_id)
        file = build_serving_file(warehouse, home, as_of, run_id, history_days, base=home / "serving" / LINK)
        file = file.replace(file.with_name(version_name(publications(warehouse) | {as_of: run_id})))
        with transaction(warehouse):
            for table in PUBLISHED:
                rows = f"select * from next_{table} where as_of = date '{as_of}' order by all"
                replace_partition(warehouse, f"mart.{table}", rows, as_of=as_of)
            warehouse.execute(
                "update mart.runs set status = 'replaced' where as_of = $as_of and status = 'published'",
                {"as_of": as_of},
            )
            warehouse.execute(
                "update mart.runs set status = 'published', published_at = $at, stale_since = null where run_id = $run_id",
                {"at": at, "run_id": run_id},
            )
        write_parquet(warehouse, home, as_of)
        per_list = (
            "select list, count(*) from mart.recommendations where as_of = $as_of group by list order by list desc"
        )
        counts = warehouse.execute(per_list, {"as_of": as_of}).fetchall()
    _serve(home, file, postgres)
    return dict(counts)


def repair(home: Path, history_days: int, postgres: str | None = None) -> bool:
    """Makes what readers open equal to `mart.publications`; returns whether a killed run or a damage had left them apart."""
    with open_warehouse(home) as warehouse:
        wanted = publications(warehouse)
        if not wanted:
            return False
        torn = [as_of for as_of, run_id in wanted.items() if not is_parquet_of(warehouse, home, as_of, run_id)]
        for as_of in torn:
            write_parquet(warehouse, home, as_of)
        served = (home / "serving" / LINK).resolve()
        if served.name == version_name(wanted) and is_readable(served):
            _mirror_again(served, postgres)
            return bool(torn)
        _drop_parquet(home, wanted)
        file = _rebuilt(warehouse, home, wanted, history_days)
    _serve(home, file, postgres)
    return True


def rollback(home: Path, to: date | None, at: datetime, history_days: int, postgres: str | None = None) -> list[date]:
    """Withdraws the publications after `to` (None: the newest one) and demotes the models trained by their runs.

    Readers go on with what was published before; nothing withdrawn comes back unless its date is run again. Returns the
    withdrawn dates. Raises `UsageError` where nothing would be left, or nothing is published later.
    """
    with open_warehouse(home) as warehouse:
        known = sorted(publications(warehouse))
        to = to or (known[-2] if len(known) > 1 else None)
        if to is None or to not in known or to == known[-1]:
            shown = ", ".join(map(str, known[-5:-1])) or "none"
            raise UsageError(f"{home}: cannot roll back to {to}; published before the newest date are: {shown}")
        with transaction(warehouse):
            later = {"at": at, "to": to}
            warehouse.execute(
                "update mart.models set demoted_at = $at, demoted_because = 'its publication was withdrawn' where run_id in"
                " (select run_id from mart.runs where as_of > $to and status = 'published' and withdrawn_at is null)",
                later,
            )
            warehouse.execute(
                "update mart.runs set withdrawn_at = $at"
                " where as_of > $to and status = 'published' and withdrawn_at is null",
                later,
            )
        wanted = publications(warehouse)
        file = _kept(home, wanted) or _rebuilt(warehouse, home, wanted, history_days)
    _drop_parquet(home, wanted)
    _serve(home, file, postgres)
    return [as_of for as_of in known if as_of > to]


def publications(warehouse: DuckDBPyConnection) -> Publications:
    """What is to be served: the run of each published date."""
    if not exists(warehouse, "mart.publications"):
        return {}
    return dict(warehouse.execute("select as_of, run_id from mart.publications order by as_of").fetchall())


def version_name(wanted: Publications) -> str:
    """Of the serving file that holds these publications: the newest one, and a digest of all."""
    as_of = max(wanted)
    return f"almanac-{as_of}-{wanted[as_of]}-{digest(sorted(wanted.items()))}.duckdb"


def _serve(home: Path, file: Path, postgres: str | None) -> None:
    with storing(home):
        swap(file)
    if postgres:
        from tasks.postgres import mirror

        mirror(file, postgres)
    prune(home / "serving")


def _mirror_again(file: Path, postgres: str | None) -> None:
    """Makes good a publication that PostgreSQL missed; where it cannot be reached, the next publication says so."""
    if postgres:
        from tasks.postgres import mirror

        try:
            mirror(file, postgres)
        except RunError as error:
            logger.warning("PostgreSQL is left as it is until the next publication: %s", error)


def _kept(home: Path, wanted: Publications) -> Path | None:
    """A version still on disk that holds just that."""
    file = home / "serving" / version_name(wanted)
    return file if file.exists() and is_readable(file) else None


def _rebuilt(warehouse: DuckDBPyConnection, home: Path, wanted: Publications, history_days: int) -> Path:
    as_of = max(wanted)
    _preview(warehouse)
    file = build_serving_file(warehouse, home, as_of, wanted[as_of], history_days)
    return file.replace(file.with_name(version_name(wanted)))


def _drop_parquet(home: Path, wanted: Publications) -> None:
    for folder in (home / "serving" / "recommendations").glob("as_of=*"):
        if date.fromisoformat(folder.name.removeprefix("as_of=")) not in wanted:
            shutil.rmtree(folder)


def _preview(warehouse: DuckDBPyConnection, as_of: date | None = None, run_id: str | None = None) -> None:
    """Temporary views `next_<table>`: what is published, with the scored rows of `as_of` in place of that date's."""
    for table in PUBLISHED:
        rows = []
        if exists(warehouse, f"mart.{table}"):
            kept = f"where as_of != date '{as_of}'" if as_of else ""
            rows.append(f"select * from mart.{table} semi join mart.publications using (as_of, run_id) {kept}")
        if as_of:
            rows.append(f"select * replace ('{run_id}' as run_id) from scored.{table} where as_of = date '{as_of}'")
        warehouse.execute(f"create or replace temp view next_{table} as {' union all by name '.join(rows)}")

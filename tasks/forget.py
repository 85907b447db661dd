"""Forgetting a user: every table and file below a home is written anew without the user; a keyed hash of the id is kept."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.erase import (
    Person,
    count_rows,
    count_traces,
    find_person,
    is_own,
    is_telling,
    literal,
    remember,
    replacing,
    rewrite_database,
    rewrite_parquet,
    tables_of,
)
from tasks.errors import RunError, UsageError
from tasks.forgotten import make_key, user_hash
from tasks.serving import STORAGE_VERSION
from tasks.sources import DATE_COLUMN
from tasks.warehouse import (
    SQL,
    connect,
    exclusive,
    exists,
    open_warehouse,
    read_home,
    read_select,
    scalar,
    storing,
)

# What is made anew when it is needed: dates in progress, the graphs and results of backtests, Prefect's state, spilled rows.
REMADE = ("work", "graphs", "backtests/origins", "backtests/results", "prefect", "spill")


def forget_user(home: Path, user_id: str, postgres_url: str | None = None, force: bool = False) -> dict[str, Any]:
    """Removes a user from all that lies below the home; later deliveries are read without the user's rows.

    The warehouse comes last and is replaced in one move: a call that was killed is done by calling again. force: also an id
    that is not known (yet). Returns `rows` by table, the `files` written anew, the folders `emptied`, the number of Prefect
    `artifacts` deleted on a server elsewhere, and `left`: files and tables in which a trace of the user still stands.
    Raises `UsageError` for an unknown id and where a run or a server is at work in the home.
    """
    if not (home / "warehouse.duckdb").exists():
        raise UsageError(f"nothing has run in {home} yet; a user is forgotten in the home that holds the warehouse")
    with exclusive(home), _no_server(home), storing(home):
        with open_warehouse(home) as warehouse:
            warehouse.execute("checkpoint")  # so that no log is left to be replayed into the new file
            person = find_person(warehouse, user_id)
            remember(warehouse, person)
            rows = count_rows(warehouse)
            if not rows and not force and not _is_forgotten(warehouse, home, user_id):
                raise UsageError(
                    f"no user {user_id!r} in {home}; ids are the source's own, as in raw.interactions.user_id. "
                    "To keep out one who may still come, add --force"
                )
        files = _rewrite_files(home, person)
        emptied = [name for name in REMADE if _empty(home / name)]
        artifacts = _delete_artifacts(read_home(home).get("source"))
        if postgres_url:
            _mirror(home, postgres_url)
        left = _rewrite_warehouse(home, person)
        _empty(home / "spill")
        left += _search(home, person)
    return {"rows": rows, "files": files, "emptied": emptied, "artifacts": artifacts, "left": left}


@contextmanager
def _no_server(home: Path) -> Iterator[None]:
    """`almanac serve` holds a lock below the home, and Prefect's database open, for as long as it lives."""
    path = home / "prefect" / "serve.lock"
    if not path.exists():
        yield
        return
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"a server runs in {home}; end `almanac serve`, then forget the user") from error
        yield


def _is_forgotten(warehouse: DuckDBPyConnection, home: Path, user_id: str) -> bool:
    if not exists(warehouse, "raw.forgotten"):
        return False
    known = "select count(*) from raw.forgotten where user_hash = $hash"
    return scalar(warehouse, known, hash=user_hash(make_key(home), user_id)) > 0


def _rewrite_files(home: Path, person: Person) -> list[str]:
    """Serving versions, Parquet files for readers and the demo shop's own input."""
    serving, landing = home / "serving", home / "landing"
    for leftover in [*serving.rglob("*.partial"), *serving.glob("next.duckdb*"), *serving.glob("*.wal")]:
        leftover.unlink()
    changed = []
    for file in sorted(serving.glob("*.duckdb")):
        if not file.is_symlink() and _rewrite_version(file, person):
            changed.append(file)
    for file in sorted([*serving.rglob("*.parquet"), *landing.rglob("*.parquet")]):
        if rewrite_parquet(file, person):
            changed.append(file)
    return [str(file.relative_to(home)) for file in changed]


def _rewrite_version(file: Path, person: Person) -> bool:
    """Under the name it has: the link `almanac.duckdb` points at a whole file at any moment."""
    with connect(temp_directory=file.parent.parent / "spill") as reader:
        reader.execute(f"attach '{literal(file)}' as version (read_only)")
        reader.execute("use version")
        remember(reader, person)
        if not (count_rows(reader) or count_traces(reader)):
            return False
        with replacing(file) as partial:
            rewrite_database(reader, partial, options=f"(storage_version '{STORAGE_VERSION}')")
    return True


def _rewrite_warehouse(home: Path, person: Person) -> list[str]:
    """Replaces the warehouse by one without the user; returns the tables that still hold a trace."""
    file = home / "warehouse.duckdb"
    with replacing(file) as partial:
        with open_warehouse(home) as warehouse:
            remember(warehouse, person)
            selects = {"raw.deliveries": _ledger(warehouse)} if exists(warehouse, "raw.deliveries") else {}
            rewrite_database(warehouse, partial, selects=selects)
        with connect(partial, temp_directory=home / "spill") as anew:
            remember(anew, person)
            held = count_traces(anew)
            _keep_hash(anew, user_hash(make_key(home), person.user_id))
        if file.with_name(f"{file.name}.wal").exists():
            raise RunError(f"{file} was not written whole; nothing was replaced: run the command again")
    return [f"{table} ({count:,} rows that are not the user's own)" for table, count in held.items()]


def _keep_hash(anew: DuckDBPyConnection, hashed: str) -> None:
    anew.execute("create table if not exists raw.forgotten (user_hash varchar, forgotten_at timestamp)")
    if not scalar(anew, "select count(*) from raw.forgotten where user_hash = $hash", hash=hashed):
        at = datetime.now(UTC).replace(tzinfo=None)
        anew.execute("insert into raw.forgotten values ($hash, $at)", {"hash": hashed, "at": at})
    anew.execute("checkpoint")


def _ledger(warehouse: DuckDBPyConnection) -> str:
    """SELECT of `raw.deliveries` once the user's rows are gone; makes `own_rows`, what these were counted as."""
    warehouse.execute(
        "create or replace temp table own_rows"
        " (table_name varchar, source_file varchar, delivery_date date, fate varchar, is_current boolean)"
    )
    fate = "case when excluded_because is null then 'kept' else 'excluded: ' || excluded_because end"
    for table, columns in tables_of(warehouse).items():
        schema, name = table.split(".")
        told = f"'{name}', source_file, {DATE_COLUMN[name]}, {fate}" if name in DATE_COLUMN else None
        if table == "quarantine.rows":
            told = "table_name, source_file, delivery_date, 'quarantined: ' || rule"
        if told and schema in ("raw", "quarantine"):
            rows = f"select {told}, superseded_at is null from {table} where {is_own(columns)}"
            warehouse.execute(f"insert into own_rows {rows}")
    return read_select(SQL / "delivery/forgotten.sql", warehouse)


def _empty(folder: Path) -> bool:
    """Removes what lies in a folder, but a person's Prefect profiles; returns whether there was anything."""
    found = [path for path in folder.glob("*") if path.name != "profiles.toml"]
    for path in found:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return bool(found)


def _delete_artifacts(source: str | None) -> int:
    """Deletes the samples of lists that runs of the source showed at a Prefect server elsewhere; returns how many."""
    if not (os.environ.get("PREFECT_API_URL") and source):
        return 0
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from tasks.artifacts import _key

    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[_key("lists", source)]))
    deleted = 0
    with get_client(sync_client=True) as client:
        while artifacts := client.read_artifacts(artifact_filter=chosen, limit=200):
            for artifact in artifacts:
                client.delete_artifact(artifact.id)
            deleted += len(artifacts)
    return deleted


def _mirror(home: Path, postgres_url: str) -> None:
    """Makes PostgreSQL hold what the served file holds, and nothing else."""
    served = home / "serving" / "almanac.duckdb"
    if served.exists():
        from tasks.postgres import mirror

        mirror(served.resolve(), postgres_url, whole=True)


def _search(home: Path, person: Person) -> list[str]:
    """Files below the home, but for the input in it, whose bytes still hold the id, where it is long enough to tell."""
    if not is_telling(person.user_id):
        return []
    inputs = Path(read_home(home).get("input", home / "landing"))
    files = [path for path in sorted(home.rglob("*")) if path.is_file() and not path.is_symlink()]
    chosen = [path for path in files if path.stat().st_size and not path.is_relative_to(inputs)]
    return [str(path.relative_to(home)) for path in chosen if _has_bytes(path, person.user_id.encode())]


def _has_bytes(path: Path, text: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0

"""DuckDB: connections, the SELECT files under sql/, and the two verbs by which durable tables change.

A connection is opened late and closed early. Parameters reach a SELECT as DuckDB session variables, so every file also runs
in the DuckDB shell after `set variable as_of = date '2011-08-08'`.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection

from tasks.errors import AlmanacError, ContractError, RunError, UsageError, brief

SQL = Path(__file__).resolve().parent.parent / "sql"
MEMORY_LIMIT = "2GB"
SCHEMAS = ("delivery", "raw", "quarantine", "staging", "graph", "scored", "mart")


@atexit.register
def _quiet_exit() -> None:
    """Keeps a known nothing off the terminal: at exit DuckDB's binding lists the types that other libraries hold."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def connect(
    path: Path | None = None,
    *,
    memory_limit: str = MEMORY_LIMIT,
    temp_directory: Path | None = None,
    read_only: bool = False,
) -> Iterator[DuckDBPyConnection]:
    """A DuckDB connection in UTC that needs no extension download; `path` None means in memory.

    Raises `AlmanacError` with the holder's process id when another process has the file open.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "autoinstall_known_extensions": False,
    }
    if path is not None or temp_directory is not None:
        config["temp_directory"] = str(temp_directory or Path(str(path)).parent / "spill")
    try:
        connection = duckdb.connect(str(path or ":memory:"), read_only=read_only, config=config)
    except duckdb.IOException as error:
        raise AlmanacError(
            f"{path} cannot be opened: {brief(error)}. Let this user read and write it, or end the other"
        ) from error
    try:
        connection.execute("set timezone = 'UTC'")
        connection.execute("set enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


@contextmanager
def open_warehouse(home: Path) -> Iterator[DuckDBPyConnection]:
    """The home's `warehouse.duckdb` with its schemas, under the memory limit and spill folder of its `home.json`.

    Raises `RunError` when the disk is full or closed to writing.
    """
    settings = read_home(home)
    temp_directory = settings.get("temp_directory")
    spill = Path(temp_directory) / "almanac-spill" if temp_directory else None  # of its own: an adapter may read it
    options: dict[str, Any] = {"memory_limit": settings.get("memory_limit", MEMORY_LIMIT), "temp_directory": spill}
    with storing(home):
        if spill:
            spill.mkdir(mode=0o700, parents=True, exist_ok=True)
    with storing(home), connect(home / "warehouse.duckdb", **options) as warehouse:
        for schema in SCHEMAS:
            warehouse.execute(f"create schema if not exists {schema}")
        yield warehouse


@contextmanager
def storing(home: Path) -> Iterator[None]:
    """Around a step that writes below a home: turns a full disk, a limit and a denied write into a `RunError`."""
    try:
        yield
    except (OSError, RuntimeError, duckdb.Error) as error:
        elsewhere = isinstance(error, OSError) and error.filename and not str(error.filename).startswith(str(home))
        if elsewhere or not (isinstance(error, OSError) or is_about_writing(error)):
            raise
        raise RunError(
            f"{home} cannot be written: {brief(error)} ({shutil.disk_usage(home).free / 1e9:,.1f} GB are free). "
            f"Nothing published was changed; make room, or lift the limit or the permission, then run again"
        ) from error


def is_about_writing(error: Exception) -> bool:
    """DuckDB and torch have no class of their own for a disk that is full or closed to them."""
    return isinstance(error, duckdb.FatalException) or any(
        words in str(error) for words in ("Could not write", "Failed to commit", "inline_container", "basic_ios")
    )


def read_home(home: Path) -> dict[str, str]:
    """What `home.json` records: source, input, memory_limit and temp_directory; empty before the first run, or if torn."""
    path = home / "home.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError:  # a failing disk or a power cut; the next run writes it anew
        return {}


def restrict(connection: DuckDBPyConnection, input_root: Path) -> None:
    """From here on the connection's database touches its own file, its spill folder and files below `input_root`, no others.

    Its configuration is locked, extensions stay out, and the variable `input` tells a source's SELECTs where to read.
    """
    set_variables(connection, input=str(input_root))
    connection.execute("set allowed_directories = $roots", {"roots": [f"{input_root}/"]})
    connection.execute("set autoload_known_extensions = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


@contextmanager
def exclusive(home: Path, wait_minutes: float = 0.0) -> Iterator[None]:
    """Holds `<home>/lock` for as long as this process writes; the kernel frees it when the process dies.

    Raises `UsageError` where another process holds it still after so many minutes.
    """
    deadline = time.monotonic() + 60 * wait_minutes
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise UsageError(f"another run is writing to {home}; wait for it to end, then try again") from error
                time.sleep(1)
        yield


def read_select(path: Path, connection: DuckDBPyConnection) -> str:
    """The text of a file that must hold one SELECT and nothing else (`ContractError` otherwise)."""
    text = path.read_text()
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise ContractError(f"{path} is not valid SQL: {error}") from error
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise ContractError(f"{path} must hold exactly one SELECT")
    return text.strip().rstrip(";") + "\n"  # ends a comment in the last line, wherever the text is put


def set_variables(connection: DuckDBPyConnection, **variables: object) -> None:
    """Sets session variables that SELECT files read with `getvariable`."""
    for name, value in variables.items():
        connection.execute(f"set variable {name} = $value", {"value": value})


def select(connection: DuckDBPyConnection, name: str, **variables: object) -> pa.Table:
    """The result of `sql/<name>.sql` as an Arrow table."""
    set_variables(connection, **variables)
    return connection.sql(read_select(SQL / f"{name}.sql", connection)).to_arrow_table()


def build(connection: DuckDBPyConnection, table: str, **variables: object) -> int:
    """Rebuilds `<schema>.<table>` from `sql/<schema>/<table>.sql`; returns its row count."""
    set_variables(connection, **variables)
    query = read_select(SQL / f"{table.replace('.', '/')}.sql", connection)
    connection.execute(f"create or replace table {table} as {query}")
    return scalar(connection, f"select count(*) from {table}")


def scalar(connection: DuckDBPyConnection, query: str, **parameters: object) -> Any:
    """The single value of a one-row query; None when there is no row."""
    rows = connection.execute(query, parameters or None).fetchall()
    return rows[0][0] if rows else None


def exists(connection: DuckDBPyConnection, table: str) -> bool:
    """Whether `<schema>.<table>` is there."""
    schema, name = table.split(".")
    found = "select count(*) from information_schema.tables where table_schema = $schema and table_name = $name"
    return scalar(connection, found, schema=schema, name=name) > 0


def append(connection: DuckDBPyConnection, table: str, query: str, **parameters: object) -> None:
    """Inserts the rows of a SELECT by column name; the table, and columns new to it, are made first."""
    # made with its rows: DuckDB 2.0 loses many that are added later to a table new in the transaction
    if not exists(connection, table):
        connection.execute(f"create table {table} as {query}", parameters or None)
        return
    known = {row[0] for row in connection.execute(f"describe {table}").fetchall()}
    for column, kind, *_ in connection.execute(f"describe {query}", parameters or None).fetchall():
        if column not in known:
            connection.execute(f"alter table {table} add column {quoted(column)} {kind}")
    connection.execute(f"insert into {table} by name {query}", parameters or None)


def quoted(identifier: str) -> str:
    """A column name as SQL writes it, whatever characters a file gave it."""
    return '"' + identifier.replace('"', '""') + '"'


def replace_partition(connection: DuckDBPyConnection, table: str, query: str, **partition: object) -> None:
    """Makes the rows of a SELECT the whole content of a partition, e.g. `as_of=…`. Call inside `transaction`."""
    if exists(connection, table):
        condition = " and ".join(f"{column} is not distinct from ${column}" for column in partition)
        connection.execute(f"delete from {table} where {condition}", partition)
    append(connection, table, query)


def supersede(
    connection: DuckDBPyConnection, table: str, date_column: str, units: str, at: object, condition: str = "true"
) -> None:
    """Marks the current rows of delivery units as replaced `at` that time; `units` is a SELECT of source_file and date."""
    connection.execute(
        f"update {table} as old set superseded_at = $at from ({units}) as unit where old.superseded_at is null "
        f"and old.source_file = unit.source_file and old.{date_column} is not distinct from unit.delivery_date"
        f" and {condition}",
        {"at": at},
    )


@contextmanager
def transaction(connection: DuckDBPyConnection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("begin")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")

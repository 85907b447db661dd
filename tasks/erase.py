"""DuckDB files and Parquet files written anew without a user: what is deleted in place stays in the file's bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.errors import RunError
from tasks.forgotten import WITHHELD
from tasks.sources import CONTRACTS
from tasks.warehouse import connect, quoted, scalar, set_variables

DERIVED = ("delivery.", "staging.", "graph.", "scored.")  # built anew by every run, so not carried over
TOLD = ("mart.", "quarantine.", "main.")  # schemas with sentences, which may name a user
SENTENCES = ("message", "observed", "raw_text")  # where also an id is looked for that could be any word or number
REMOVED = "[forgotten]"
TELLING_CHARACTERS = 8  # from which on a text is looked for everywhere: hardly anything else is written so


@dataclass(frozen=True)
class Person:
    """A user's id, and the texts (attributes) that only this user had."""

    user_id: str
    texts: tuple[str, ...] = ()

    @property
    def traces(self) -> list[str]:
        """The texts to look for everywhere."""
        return [text for text in (self.user_id, *self.texts) if is_telling(text)]


def is_telling(text: str) -> bool:
    """Whether a text is long enough to be told apart from all else wherever it stands."""
    return len(text) >= TELLING_CHARACTERS


def find_person(warehouse: DuckDBPyConnection, user_id: str) -> Person:
    """The user with the texts in `raw.users` that no other user has."""
    texts: set[str] = set()
    for name, kind in tables_of(warehouse).get("raw.users", {}).items():
        if kind in ("VARCHAR", "VARCHAR[]") and name not in {*CONTRACTS["users"], "excluded_because", "source_file"}:
            value = f"unnest({quoted(name)})" if kind == "VARCHAR[]" else quoted(name)
            query = f"select {value} as text from raw.users where user_id"
            own = f"{query} = $user except {query} is distinct from $user"
            texts |= {text for (text,) in warehouse.execute(own, {"user": user_id}).fetchall() if text}
    return Person(user_id, tuple(sorted(texts)))


def remember(connection: DuckDBPyConnection, person: Person) -> None:
    """Sets the variables that the conditions below read."""
    word = "".join(sign if sign.isalnum() or sign == "_" else f"\\{sign}" for sign in person.user_id)
    pattern = rf"(^|[^\pL\pN_])({word})($|[^\pL\pN_])"
    set_variables(connection, forget_user=person.user_id, forget_word=pattern, forget_traces=person.traces)


def tables_of(connection: DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Names and types of the columns of every table of the connection's own database."""
    rows = connection.execute(
        "select schema_name || '.' || table_name, column_name, data_type from duckdb_columns()"
        " where database_name = current_database() and not internal and (schema_name, table_name) in"
        "  (select (schema_name, table_name) from duckdb_tables() where database_name = current_database())"
        " order by all"
    ).fetchall()
    tables: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        tables.setdefault(table, {})[name] = kind
    return tables


def count_rows(connection: DuckDBPyConnection) -> dict[str, int]:
    """By table the rows that are the user's, where there are any."""
    counts = {
        table: scalar(connection, f"select count(*) from {table} where {is_own(columns)}")
        for table, columns in tables_of(connection).items()
    }
    return {table: count for table, count in counts.items() if count}


def count_traces(connection: DuckDBPyConnection) -> dict[str, int]:
    """By table the rows that name the user as a part of something else, where there are any and the id is telling."""
    user, counts = "getvariable('forget_user')", {}
    if not scalar(connection, f"select list_contains(getvariable('forget_traces'), {user})"):
        return {}
    for table, columns in tables_of(connection).items():
        texts = [quoted(name) for name, kind in columns.items() if "VARCHAR" in kind or kind == "JSON"]
        held = " or ".join(f"coalesce(contains(cast({text} as varchar), {user}), false)" for text in texts)
        if held and (count := scalar(connection, f"select count(*) from {table} where {held}")):
            counts[table] = count
    return counts


def rewrite_database(
    connection: DuckDBPyConnection,
    new: Path,
    *,
    options: str = "",
    selects: dict[str, str] | None = None,
) -> None:
    """Writes what the connection's database holds into the file `new` and closes it, without the user (`remember`).

    Tables, views, macros, comments and keys stay; tables of derived schemas are left out. selects: tables whose rows are
    those of a SELECT. Raises `RunError` where the new file does not hold what it should.
    """
    old = scalar(connection, "select current_database()")
    connection.execute(f"attach '{literal(new)}' as anew {options}")
    connection.execute(f"copy from database {quoted(old)} to anew (schema)")
    for schema in DERIVED:
        connection.execute(f"drop schema if exists anew.{schema.rstrip('.')} cascade")
    for table, columns in tables_of(connection).items():
        if table.startswith(DERIVED):
            continue
        rows = (selects or {}).get(table) or _kept_rows(table, columns)
        connection.execute(f"insert into anew.{table} by name {rows}")
        _check_count(connection, table, columns)
    _check_views(connection)
    connection.execute("checkpoint anew")
    connection.execute("detach anew")


def rewrite_parquet(file: Path, person: Person) -> bool:
    """Replaces a Parquet file by one without the user's rows; returns whether it held any."""
    with connect() as connection:
        remember(connection, person)
        source = f"read_parquet('{literal(file)}', hive_partitioning = false)"
        columns = {row[0]: row[1] for row in connection.execute(f"describe from {source}").fetchall()}
        own = is_own(columns)
        if not scalar(connection, f"select count(*) from {source} where {own}"):
            return False
        with replacing(file) as partial:
            connection.sql(f"select * from {source} where not ({own})").write_parquet(str(partial), compression="zstd")
    return True


def is_own(columns: dict[str, str]) -> str:
    """SQL: whether a row of a table with these columns is the user's."""
    user = "getvariable('forget_user')"
    named = [name for name, kind in columns.items() if kind == "VARCHAR" and name.endswith("user_id")]
    conditions = [f"coalesce({quoted(name)} = {user}, false)" for name in named]
    if {"node_kind", "node_id"} <= columns.keys():
        conditions.append(f"(node_kind = 'user' and node_id = {user})")
    if "raw_text" in columns:  # a broken row as JSON
        paths = ", ".join(f"trim(json_extract_string(raw_text, '$.{name}'))" for name in ("user_id", "other_user_id"))
        conditions.append(f"case when json_valid(raw_text) then coalesce({user} in ({paths}), false) else false end")
    return " or ".join(conditions) or "false"


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a path beside the file to write to, and puts that in its place, fsynced, with its mode and age.

    Readers that have the old file open keep it. After an error nothing of the new one is left.
    """
    partial = file.with_name(f".{file.name}.partial")
    leftovers = (partial, partial.with_name(f"{partial.name}.wal"))
    try:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        yield partial
        if leftovers[1].exists():
            raise RunError(f"{partial} was not written whole; nothing was replaced: run the command again")
        _sync(partial)
        shutil.copystat(file, partial)
        os.replace(partial, file)
        _sync(file.parent)
    finally:
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)


def literal(path: Path) -> str:
    """A path as it stands between the quotes of an SQL text."""
    return str(path).replace("'", "''")


def _sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _kept_rows(table: str, columns: dict[str, str]) -> str:
    """SELECT of the rows that are not the user's, with sentences that name the user cleaned."""
    replaced = []
    if table.startswith(TOLD):
        texts = [name for name, kind in columns.items() if kind == "VARCHAR" and not name.endswith("_id")]
        replaced = [f"{_cleaned(name)} as {quoted(name)}" for name in texts if name != "source_file"]
    cleaned = f" replace ({', '.join(replaced)})" if replaced else ""
    return f"select *{cleaned} from {table} where not ({is_own(columns)})"


def _cleaned(name: str) -> str:
    text = quoted(name)
    has_word = f"regexp_matches({text}, getvariable('forget_word'))"
    if name == "raw_text":
        held = f"lambda trace: contains({text}, trace)"
        held = f"len(list_filter(getvariable('forget_traces'), {held})) > 0"
        return f"case when coalesce({held} or {has_word}, false) then '{WITHHELD}' else {text} end"
    traces = f"list_prepend({text}, getvariable('forget_traces'))"
    text = f"list_reduce({traces}, lambda told, trace: replace(told, trace, '{REMOVED}'))"
    if name in SENTENCES:
        for _ in range(2):  # neighbours share what lies between them
            text = f"regexp_replace({text}, getvariable('forget_word'), '\\1{REMOVED}\\3', 'g')"
    return text


def _check_count(connection: DuckDBPyConnection, table: str, columns: dict[str, str]) -> None:
    kept = scalar(connection, f"select count(*) from {table} where not ({is_own(columns)})")
    found = scalar(connection, f"select count(*) from anew.{table}")
    if kept != found:
        raise RunError(f"{table} should hold {kept:,} rows without the user, found {found:,}; nothing was replaced")


def _check_views(connection: DuckDBPyConnection) -> None:
    views = (
        "select schema_name || '.' || view_name from duckdb_views() where database_name = 'anew' and not internal"
        " order by all"
    )
    for (view,) in connection.execute(views).fetchall():
        connection.execute(f"describe anew.{view}")

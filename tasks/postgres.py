"""Mirrors a serving file into PostgreSQL: the same views and rows, in one transaction, copying only what differs.

Schema `almanac` holds the views, `almanac_tables` what they read. Tables are never altered: where their layout changed,
they are made anew beside the old ones and filled from the file, and the views turn to them at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from duckdb import DuckDBPyConnection

from tasks.errors import RunError, UsageError, brief
from tasks.postgres_layout import LAYOUT, Layout, grant, layout_of, make_tables, turn_views
from tasks.serving import TABLES
from tasks.warehouse import connect, quoted

LOCK = 0x616C6D616E6163  # of the one mirror at a time; "almanac" as a number
WAIT_SECONDS = 60  # for another mirror
BATCH_ROWS = 100_000
SESSION = {"connect_timeout": "10", "application_name": "almanac", "keepalives_idle": "30", "tcp_user_timeout": "60000"}
ADVICE = (  # by what the server says or the class of its error
    (("28P01", "28000", "password"), "give the right user and password in the URL of --postgres"),
    (("42501",), "let an owner run: grant create on database … to the user, or see docs/readers.md"),
    (("55P03",), "another mirror, or a reader with an open transaction, holds it: let it end"),
    (("2BP01",), "drop the views that depend on it, and make them anew afterwards"),
    (("53100",), "make room on the server's disk"),
    (("3D000", "database", "role"), "correct user and database in the URL of --postgres, or create them"),
    (("Failed to connect", "no connection", "closed"), "see that the server runs and that host and port are right"),
    (("",), "see what the server's log tells"),
)
Held = dict[tuple[str, date], tuple[int, str]]  # table, date → rows, digest


@dataclass(frozen=True)
class Server:
    """A PostgreSQL URL, taken apart: what is connected to, what may be told of it, and what must not."""

    url: str
    place: str
    secrets: tuple[str, ...]

    def told(self, error: Exception) -> str:
        """What the server says, without the statement it says it of and without the password."""
        words = re.search(r"\w+:  .*", str(error), re.DOTALL)  # severity, in the server's language, and two blanks
        text = brief(Exception(words[0])) if words else brief(error)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def mirror(file: Path, url: str, *, whole: bool = False) -> dict[str, int]:
    """Makes schema `almanac` of a PostgreSQL database hold what a serving file holds; returns rows copied by table.

    Readers see the old state until the commit, then the new one, and never wait for the copying. A second mirror waits for
    the first. whole: makes all tables anew, so that nothing of the old ones stays in the files of the database.
    Raises `RunError` when the server cannot be used or holds another home's lists, `UsageError` for a URL that is none.
    """
    server = read_url(url)
    with connect(file, read_only=True) as serving, _session(server) as cursor:
        layout = layout_of(serving, file)
        _wait_for_turn(cursor)
        made = _layout_in(cursor, server, layout)
        _check_source(cursor, serving, server, made)
        anew = whole or made != layout.digest
        if anew:
            make_tables(cursor, layout)
        new, old = _held_by_file(serving), {} if anew else _held_by_server(cursor)
        copied = {table: _copy(serving, cursor, table, new, old) for table in TABLES}
        if new != old:
            _record(serving, cursor, new)
        if anew:
            turn_views(cursor, layout)
        grant(cursor)
    if whole:
        with _session(server, autocommit=True) as cursor:
            cursor.execute("vacuum full pg_statistic")  # which keeps frequent values of dropped tables, ids among them
    return copied


def read_url(url: str) -> Server:
    """Raises `UsageError`, without the URL in it, for what is no PostgreSQL URL."""
    wrong = UsageError(
        "the URL of --postgres must be postgresql://user:password@host:port/database; write signs such as @ : / ? # [ ] %"
        " in user and password as %40 %3A %2F %3F %23 %5B %5D %25"
    )
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("postgresql", "postgres") or re.search("%(?![0-9A-Fa-f]{2})", url):
        raise wrong
    given = dict(pair.split("=", 1) for pair in parts.query.split("&") if "=" in pair)
    hidden = {parts.password or "", given.get("password", ""), given.get("sslpassword", "")} - {""}
    secrets = sorted({url, *hidden, *map(unquote, hidden)}, key=len, reverse=True)
    settings = [parts.query, *(f"{name}={value}" for name, value in SESSION.items() if name not in given)]
    place = f"{parts.hostname or unquote(given.get('host', 'localhost'))}:{given.get('port', port)}{parts.path}"
    return Server(parts._replace(query="&".join(filter(None, settings))).geturl(), place, tuple(secrets))


@contextmanager
def _session(server: Server, *, autocommit: bool = False) -> Iterator[Any]:
    """A cursor in a transaction that is committed at the end, or rolled back; the server's errors become `RunError`s."""
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError as error:
        raise UsageError("PostgreSQL needs its driver: pip install -c constraints.txt -e '.[postgres]'") from error
    try:
        with driver.connect(server.url, autocommit=autocommit) as connection, connection.cursor() as cursor:
            yield cursor
            if not autocommit:
                connection.commit()
    except driver.Error as error:
        said = server.told(error)
        hints = (error.sqlstate or "", said)
        advice = next(advice for signs, advice in ADVICE if any(sign in hint for sign in signs for hint in hints))
        raise RunError(
            f"PostgreSQL {server.place} was not brought up to date: {said}. Its readers see what they saw before; "
            f"{advice}, then run again"
        ) from None


def _wait_for_turn(cursor: Any) -> None:
    cursor.execute("set transaction isolation level read committed")  # to see what the mirror before has done
    for setting, value in (
        ("client_min_messages", "warning"),
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", f"{WAIT_SECONDS}s"),
    ):
        cursor.execute(f"set local {setting} = '{value}'")
    one(cursor, f"select pg_advisory_xact_lock({LOCK})")


def _layout_in(cursor: Any, server: Server, layout: Layout) -> str | None:
    """The digest of the layout that the database has, None for none."""
    if (encoding := one(cursor, "select current_setting('server_encoding')")[0]) != "UTF8":
        raise RunError(f"PostgreSQL {server.place} has encoding {encoding}; make a database with encoding 'UTF8'")
    if not one(cursor, "select to_regclass('almanac_tables.layout') is not null")[0]:
        return None
    version, digest = one(cursor, "select version, digest from almanac_tables.layout")
    if version > LAYOUT:
        raise RunError(
            f"PostgreSQL {server.place} was filled by a later version of Almanac (layout {version}, this one knows "
            f"{LAYOUT}); update Almanac here, or drop schemas almanac and almanac_tables and run again"
        )
    return digest


def _check_source(cursor: Any, serving: DuckDBPyConnection, server: Server, made: str | None) -> None:
    held = made and one(cursor, "select max(source) from almanac_tables.runs")[0]
    served = serving.execute("select max(source) from runs").fetchall()[0][0]
    if held and held != served:
        raise RunError(
            f"PostgreSQL {server.place} holds the lists of source {held}; give {served} a database of its own"
        )


def _held_by_file(serving: DuckDBPyConnection) -> Held:
    """Rows and an order-free digest of each table and date; 0 for the sum of a date without rows."""
    rows = [
        (table, *row)
        for table in TABLES
        for row in serving.execute(
            f"select as_of, count(*), cast(sum(hash({table})) as varchar) from {table} group by as_of"
        ).fetchall()
    ]
    return {(table, as_of): (count, digest) for table, as_of, count, digest in rows}


def _held_by_server(cursor: Any) -> Held:
    cursor.execute("select table_name, as_of, row_count, digest from almanac_tables.held")
    return {(table, as_of): (count, digest) for table, as_of, count, digest in cursor.fetchall()}


def _copy(serving: DuckDBPyConnection, cursor: Any, table: str, new: Held, old: Held) -> int:
    """Replaces the dates of a table that differ; returns the rows copied."""
    changed = {key[1] for key in new.keys() | old.keys() if key[0] == table and new.get(key) != old.get(key)}
    if not changed:
        return 0
    dates = ", ".join(f"date '{as_of}'" for as_of in sorted(changed))
    if old:
        cursor.execute(f"delete from almanac_tables.{table} where as_of in ({dates})")
    columns = ", ".join(_storable(name, kind) for name, kind, *_ in serving.execute(f"describe {table}").fetchall())
    rows = serving.sql(f"select {columns} from {table} where as_of in ({dates})").to_arrow_reader(BATCH_ROWS)
    count = cursor.adbc_ingest(table, rows, mode="append", db_schema_name="almanac_tables")
    cursor.execute(f"analyze almanac_tables.{table}")
    return count


def _storable(column: str, kind: str) -> str:
    """PostgreSQL's text cannot hold the character NUL; it becomes � there."""
    name = quoted(column)
    return f"replace({name}, chr(0), '�') as {name}" if kind == "VARCHAR" else name


def _record(serving: DuckDBPyConnection, cursor: Any, held: Held) -> None:
    import pyarrow as pa

    cursor.execute("delete from almanac_tables.held")
    names = ["table_name", "as_of", "row_count", "digest"]
    rows = pa.table(
        [list(column) for column in zip(*((*key, *what) for key, what in held.items()), strict=True)], names
    )
    cursor.adbc_ingest("held", rows, mode="append", db_schema_name="almanac_tables")


def one(cursor: Any, query: str) -> tuple[Any, ...]:
    """The row of a query that gives one."""
    cursor.execute(query)
    return cursor.fetchone()

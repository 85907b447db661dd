"""What Almanac makes in a PostgreSQL database: tables like those of a serving file, its views, and who may read them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.errors import RunError
from tasks.serving import SCORED, TABLES, VIEWS, sql_text
from tasks.warehouse import SQL, quoted

LAYOUT = 1  # counts up with every change of tables or views, so that an older Almanac leaves a newer database alone
READER = "almanac_reader"
LOCK_TRIES = 60  # of half a second each with half a second between, in which readers go on
KEYS = {
    "recommendations": "as_of, user_id, list, rank",  # the newest lists of a user: one look into the index
    "item_recommendations": "as_of, item_id, rank",
    "runs": "as_of",
    "run_history": "run_id",
    "quality": "as_of, list, metric, k, ranker",
    "reach": "as_of, list, item_id",
}
TYPES = {
    "VARCHAR": 'text collate "C"',  # sorts as DuckDB does, whatever the database's language
    "DATE": "date",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "FLOAT": "real",
    "DOUBLE": "double precision",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp",
}


@dataclass(frozen=True)
class Layout:
    """The statements that make tables, with their indices, and views."""

    tables: tuple[str, ...]
    views: tuple[str, ...]
    comments: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Equal for equal statements."""
        return hashlib.sha256("\n".join(self.tables + self.views + self.comments).encode()).hexdigest()


def layout_of(serving: DuckDBPyConnection, file: Path) -> Layout:
    """What a serving file asks for; raises `RunError` for one that another version of Almanac made."""
    found = {name for (name,) in serving.execute("select table_name from information_schema.tables").fetchall()}
    if found != {*TABLES, *VIEWS}:
        raise RunError(f"{file} was made by another version of Almanac; publish once more, then its readers are served")
    tables = [_table(serving, table) for table in TABLES]
    # a whole date is read in its order
    tables += [f"create index on almanac_tables.{table} (as_of)" for table in SCORED]
    views = [f"create or replace view almanac.{view} as {(SQL / f'serving/{view}.sql').read_text()}" for view in VIEWS]
    told = serving.execute(
        "select view_name, comment from duckdb_views() where not internal order by view_name"
    ).fetchall()
    comments = [f"comment on view almanac.{view} is {sql_text(text)}" for view, text in told]
    told = serving.execute(
        "select table_name, column_name, comment from duckdb_columns() where list_contains($views, table_name)"
        " order by table_name, column_index",
        {"views": list(VIEWS)},
    ).fetchall()
    comments += [f"comment on column almanac.{view}.{quoted(name)} is {sql_text(text)}" for view, name, text in told]
    return Layout(tuple(tables), tuple(views), tuple(comments))


def _table(serving: DuckDBPyConnection, table: str) -> str:
    columns = [f"{quoted(name)} {TYPES[kind]}" for name, kind, *_ in serving.execute(f"describe {table}").fetchall()]
    return (
        f"create table almanac_tables.{table} ({', '.join(columns)}, primary key ({KEYS[table]}))"
        " with (autovacuum_vacuum_scale_factor = 0.02)"  # a date a day goes and comes in a table of many
    )


def make_tables(cursor: Any, layout: Layout) -> None:
    """Empty tables under their names; those of before are in schema `almanac_tables_old`, where their views read on."""
    cursor.execute("select nspname from pg_namespace where nspname in ('almanac', 'almanac_tables')")
    there = {name for (name,) in cursor.fetchall()}
    cursor.execute("select count(*) from pg_class where relnamespace = to_regnamespace('almanac_tables')")
    if cursor.fetchone()[0]:
        cursor.execute("alter schema almanac_tables rename to almanac_tables_old")
        there.discard("almanac_tables")
    for schema in {"almanac", "almanac_tables"} - there:  # `if not exists` would ask for the right to create one
        cursor.execute(f"create schema {schema}")
    cursor.execute("create table almanac_tables.layout (version integer, digest text, views text, made_at timestamptz)")
    cursor.execute(
        "create table almanac_tables.held (table_name text, as_of date, row_count bigint, digest text,"
        " primary key (table_name, as_of))"
    )
    for statement in layout.tables:
        cursor.execute(statement)
    cursor.execute(
        f"insert into almanac_tables.layout values ({LAYOUT}, '{layout.digest}', '{','.join(VIEWS)}', now())"
    )


def turn_views(cursor: Any, layout: Layout) -> None:
    """Makes the views read the new tables and drops the old ones: the only step that locks readers out, for a moment.

    Waits for readers in short tries, so that others are not held up behind it. Views that people made upon these stay
    where the columns stay.
    """
    cursor.execute("set local search_path = almanac_tables, pg_catalog")
    cursor.execute("select to_regclass('almanac_tables_old.layout') is not null")
    dropped: list[str] = []
    if cursor.fetchone()[0]:
        cursor.execute("select views from almanac_tables_old.layout")
        dropped = [
            f"drop view if exists almanac.{view}" for view in cursor.fetchone()[0].split(",") if view not in VIEWS
        ]
    replaced = [_replaced(view, statement) for view, statement in zip(VIEWS, layout.views, strict=True)]
    last = ["drop schema if exists almanac_tables_old cascade"]
    statements = [f"{statement};" for statement in (*dropped, *last)]
    body = "\n".join([*replaced, *statements, *(f"{comment};" for comment in layout.comments)])
    cursor.execute(_patiently(body))


def _replaced(view: str, statement: str) -> str:
    """Replaces a view, or drops it first where its columns changed."""
    return (
        f"begin execute $view${statement}$view$;"
        f" exception when invalid_table_definition then drop view almanac.{view}; execute $view${statement}$view$; end;"
    )


def _patiently(body: str) -> str:
    return f"""
do $patiently$
declare tries integer := 0;
begin
    perform set_config('lock_timeout', '500ms', true);
    loop
        begin
            {body}
            exit;
        exception when lock_not_available or deadlock_detected then
            tries := tries + 1;
            if tries >= {LOCK_TRIES} then raise; end if;
        end;
        perform pg_sleep(0.5);
    end loop;
end
$patiently$"""


def grant(cursor: Any) -> None:
    """Lets role `almanac_reader` read all views; makes the role where the connected one may make roles."""
    cursor.execute(
        f"select exists (select from pg_roles where rolname = '{READER}'), rolcreaterole or rolsuper from pg_roles"
        " where rolname = current_user"
    )
    there, may_create = cursor.fetchone()
    if not there and may_create:
        cursor.execute(f"create role {READER} nologin")
    elif not there:
        return
    views = ", ".join(f"almanac.{view}" for view in VIEWS)
    granted = " and ".join(f"has_table_privilege('{READER}', 'almanac.{view}', 'select')" for view in VIEWS)
    cursor.execute(f"select has_schema_privilege('{READER}', 'almanac', 'usage') and {granted}")
    if not cursor.fetchone()[0]:
        cursor.execute(f"grant usage on schema almanac to {READER}")
        cursor.execute(f"grant select on {views} to {READER}")

"""PostgreSQL holds what the serving file holds, changes at one moment, and says clearly why it cannot. The server is real."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from polars.testing import assert_frame_equal

from benchmarks.local_postgres import ESCAPED, PASSWORD, Server
from benchmarks.marked_lists import FIRST_DATE, MarkedHome
from tasks import postgres, postgres_layout
from tasks.errors import AlmanacError, RunError, UsageError
from tasks.postgres import mirror, read_url
from tasks.serving import TABLES, VIEWS
from tasks.warehouse import SQL
from tests.test_bad_input import is_listed

DAY = timedelta(days=1)
LISTS = 2 * 20 * 5  # rows of a date: lists, users, ranks
NOTHING = dict.fromkeys(TABLES, 0)


@dataclass(frozen=True)
class Database:
    """An empty database of the server and a role that owns it but may nothing else."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name, self.name)

    def execute(self, *statements: str, user: str | None = None) -> list[tuple[Any, ...]]:
        return self.server.execute(*statements, database=self.name, user=user or self.name)

    def view(self, view: str) -> pl.DataFrame:
        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(f"select * from almanac.{view}")
            return pl.DataFrame(cursor.fetch_arrow_table())

    @contextmanager
    def session(self, *statements: str) -> Iterator[Any]:
        """A cursor in a transaction that is open until the end."""
        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            yield cursor


@pytest.fixture
def database(postgres_server: Server) -> Database:
    name = f"d{uuid4().hex[:8]}"
    postgres_server.execute(f"create role {name} login password '{PASSWORD}'", f"create database {name} owner {name}")
    return Database(postgres_server, name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Serving files after each of four publications of three dates; treat as read-only."""
    marked = MarkedHome(tmp_path_factory.mktemp("marked") / "home")
    days = (0, 1, 1, 2)
    return [marked.publish(version, FIRST_DATE + day * DAY, history_days=2) for version, day in enumerate(days)]


@pytest.fixture
def changed(files: list[Path], tmp_path: Path) -> Path:
    """A copy of the first file, to be changed."""
    return Path(shutil.copy(files[0], tmp_path / "changed.duckdb"))


def execute(file: Path, *statements: str) -> None:
    with duckdb.connect(str(file)) as writer:
        for statement in statements:
            writer.execute(statement)


def file_view(file: Path, view: str) -> pl.DataFrame:
    with duckdb.connect(str(file), read_only=True) as reader:
        return reader.sql(f"from {view}").pl()


def assert_same(database: Database, file: Path) -> None:
    for view in VIEWS:
        mirrored, expected = database.view(view), file_view(file, view)
        assert_frame_equal(mirrored, expected, check_row_order=view in ("latest_runs", "run_log"))


def refused(file: Path, url: str) -> str:
    """The message of the refusal, which docs/messages.md lists and which tells no password."""
    with pytest.raises(AlmanacError) as caught:
        mirror(file, url)
    message = str(caught.value)
    assert is_listed(message), message
    assert PASSWORD not in message and ESCAPED not in message and "geheim" not in message
    assert caught.value.__cause__ is None or PASSWORD not in str(caught.value.__cause__)
    return message


@contextmanager
def mirroring(file: Path, url: str) -> Iterator[list[Any]]:
    """A mirror that runs beside the body, which must let it end; its result or error stands in the list after that."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(mirror(file, url))
        except AlmanacError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        thread.join(60)


def wait_until_blocked(database: Database) -> int:
    """The process id of the mirror, once it waits for a lock."""
    waiting = f"select pid from pg_stat_activity where datname = '{database.name}' and wait_event_type = 'Lock'"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if rows := database.execute(waiting):
            return rows[0][0]
        time.sleep(0.02)
    raise TimeoutError("the mirror never waited")


def test_views_hold_the_rows_columns_and_types_of_the_file(files: list[Path], database: Database) -> None:
    for file in files:
        mirror(file, database.url)
        assert_same(database, file)


def test_views_and_columns_carry_the_comments_of_the_file(files: list[Path], database: Database) -> None:
    mirror(files[3], database.url)
    query = (
        "select relname::text, coalesce(attname::text, ''), description from pg_description join pg_class on objoid ="
        " pg_class.oid left join pg_attribute on attrelid = objoid and attnum = objsubid and attnum > 0"
        " where relnamespace = to_regnamespace('almanac')"
    )
    with duckdb.connect(str(files[3]), read_only=True) as reader:
        told = "select view_name, '', comment from duckdb_views() where not internal union all"
        told += " select table_name, column_name, comment from duckdb_columns() where list_contains($views, table_name)"
        expected = reader.execute(told, {"views": list(VIEWS)}).fetchall()
    assert sorted(database.execute(query)) == sorted(expected)
    assert len(expected) > 60


def test_mirroring_again_copies_nothing(files: list[Path], database: Database) -> None:
    assert mirror(files[0], database.url)["recommendations"] == LISTS
    assert mirror(files[0], database.url) == NOTHING


def test_only_dates_that_differ_are_copied(files: list[Path], database: Database) -> None:
    first, second, again, third = (
        files  # two dates, of which the second was published again, then a third: the first left
    )
    for file, dates in ((first, 1), (second, 1), (again, 1), (third, 1), (second, 2)):
        assert mirror(file, database.url)["recommendations"] == dates * LISTS
        assert_same(database, file)


def test_readers_see_all_of_the_old_version_at_once_until_all_of_the_new_is_there(
    files: list[Path], database: Database
) -> None:
    mirror(files[0], database.url)
    quick = "set statement_timeout = '2s'"
    with (
        database.session("lock table almanac_tables.held in share mode") as lock,
        mirroring(files[1], database.url) as done,
    ):
        wait_until_blocked(database)  # with all copied, and only the record to be written
        assert_same(database, files[0])
        for view in VIEWS:
            assert database.execute(quick, f"select count(*) from almanac.{view}")
        lock.connection.rollback()
    assert done[0]["recommendations"] == LISTS
    assert_same(database, files[1])


def test_a_reader_in_a_transaction_keeps_its_version_and_holds_nobody_up(files: list[Path], database: Database) -> None:
    mirror(files[0], database.url)
    newest = "select max(as_of) from almanac.current_recommendations"
    with database.session("set transaction isolation level repeatable read", newest) as reader:
        mirror(files[3], database.url)
        for view in ("current_recommendations", "latest_runs", "item_reach", "similar_items"):
            reader.execute(f"select max(as_of) from almanac.{view}")
            assert reader.fetchall() == [(FIRST_DATE,)]
    assert database.execute(newest) == [(FIRST_DATE + 2 * DAY,)]


def test_a_cut_connection_leaves_the_old_version_and_the_next_mirror_completes(
    files: list[Path], database: Database
) -> None:
    mirror(files[0], database.url)
    with (
        database.session("lock table almanac_tables.held in share mode") as lock,
        mirroring(files[1], database.url) as done,
    ):
        process = wait_until_blocked(database)
        database.server.execute(f"select pg_terminate_backend({process})")
        time.sleep(0.2)
        lock.connection.rollback()
    assert isinstance(done[0], RunError) and "was not brought up to date" in str(done[0])
    assert_same(database, files[0])
    mirror(files[1], database.url)
    assert_same(database, files[1])


def test_a_second_mirror_waits_for_the_first(files: list[Path], database: Database) -> None:
    mirror(files[0], database.url)
    with (
        database.session(f"select pg_advisory_xact_lock({postgres.LOCK})") as first,
        mirroring(files[1], database.url) as done,
    ):
        wait_until_blocked(database)
        assert not done
        first.connection.rollback()
    assert done[0]["recommendations"] == LISTS


def test_a_second_mirror_gives_up_when_the_first_takes_too_long(
    files: list[Path], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "WAIT_SECONDS", 1)
    with database.session(f"select pg_advisory_xact_lock({postgres.LOCK})"):
        assert "another mirror" in refused(files[0], database.url)


def test_an_older_layout_is_replaced_in_one_step_and_views_made_upon_it_stay(
    files: list[Path], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(postgres_layout, "KEYS", postgres_layout.KEYS | {"reach": "as_of, item_id, list"})
        mirror(files[0], database.url)
    database.execute(
        "create view almanac.retired as select 1 as one",
        f"update almanac_tables.layout set version = 0, views = '{','.join([*VIEWS, 'retired'])}'",
        "create view public.my_view as select user_id from almanac.current_recommendations",
    )
    assert mirror(files[0], database.url)["recommendations"] == LISTS
    assert_same(database, files[0])
    assert database.execute("select count(*) from public.my_view") == [(LISTS,)]
    assert database.execute("select viewname::text from pg_views where schemaname = 'almanac' order by 1") == [
        (view,) for view in sorted(VIEWS)
    ]
    assert database.execute("select version from almanac_tables.layout") == [(postgres_layout.LAYOUT,)]
    assert database.execute("select count(*) from pg_namespace where nspname like 'almanac%'") == [(2,)]


def test_a_view_whose_columns_changed_is_made_anew(files: list[Path], database: Database) -> None:
    mirror(files[0], database.url)
    database.execute(
        "drop view almanac.item_reach",
        "create view almanac.item_reach as select 1 as other",
        "update almanac_tables.layout set digest = 'older'",
    )
    mirror(files[0], database.url)
    assert_same(database, files[0])


def test_views_that_depend_on_a_changed_one_are_named(files: list[Path], database: Database) -> None:
    mirror(files[0], database.url)
    database.execute(
        "drop view almanac.item_reach",
        "create view almanac.item_reach as select 1 as other",
        "create view public.my_view as select other from almanac.item_reach",
        "update almanac_tables.layout set digest = 'older'",
    )
    assert re.search("my_view.*drop the views that depend on it", refused(files[0], database.url))


def test_a_reader_in_a_transaction_delays_a_change_of_layout_but_no_other_reader(
    files: list[Path], database: Database
) -> None:
    mirror(files[0], database.url)
    database.execute("update almanac_tables.layout set digest = 'older'")
    with (
        database.session("select count(*) from almanac.item_reach") as reader,
        mirroring(files[1], database.url) as done,
    ):
        wait_until_blocked(database)
        for _ in range(5):
            start = time.monotonic()
            assert database.execute("select max(as_of) from almanac.item_reach") == [(FIRST_DATE,)]
            assert time.monotonic() - start < 2
        reader.connection.rollback()
    assert done[0]["recommendations"] == 2 * LISTS
    assert_same(database, files[1])


def test_a_newer_layout_is_left_alone(files: list[Path], database: Database) -> None:
    mirror(files[0], database.url)
    database.execute("update almanac_tables.layout set version = version + 1")
    assert "later version of Almanac" in refused(files[1], database.url)
    assert_same(database, files[0])


def test_a_file_of_another_version_is_refused(changed: Path, database: Database) -> None:
    execute(changed, "drop view run_log")
    assert "made by another version of Almanac; publish once more" in refused(changed, database.url)


def test_whole_leaves_nothing_of_what_was_there_on_the_servers_disk(changed: Path, database: Database) -> None:
    mark = uuid4().hex
    user = "where user_id = 'user 00007'"
    execute(changed, f"update recommendations set reason_item_id = '{mark}' {user}")
    mirror(changed, database.url)
    assert found_on_disk(database, mark)
    execute(changed, f"delete from recommendations {user}")
    assert mirror(changed, database.url, whole=True)["recommendations"] == LISTS - 10
    assert not found_on_disk(database, mark)
    assert_same(database, changed)


def found_on_disk(database: Database, mark: str) -> bool:
    database.server.execute("checkpoint")
    files = (database.server.folder / "data/base").rglob("*")
    return any(mark.encode() in file.read_bytes() for file in files if file.is_file())


def test_text_that_postgresql_cannot_hold_loses_only_the_nul(changed: Path, database: Database) -> None:
    execute(changed, "update recommendations set reason_item_id = 'a' || chr(0) || 'ü\"'';\n\\N'")
    mirror(changed, database.url)
    assert database.execute("select distinct reason_item_id from almanac.current_recommendations") == [
        ("a�ü\"';\n\\N",)
    ]


def test_another_sources_lists_are_not_overwritten(files: list[Path], changed: Path, database: Database) -> None:
    mirror(files[0], database.url)
    execute(changed, "update runs set source = 'other'")
    assert "holds the lists of source marked; give other a database of its own" in refused(changed, database.url)
    assert_same(database, files[0])


def test_the_reader_role_reads_views_and_nothing_else(files: list[Path], database: Database) -> None:
    admin = database.server.url(database.name)
    analyst = f"{database.name}_analyst"
    mirror(files[0], admin)
    database.server.execute(f"create role {analyst} login", f"grant almanac_reader to {analyst}")
    for view in VIEWS:
        assert database.execute(f"select count(*) from almanac.{view}", user=analyst)
    for denied in (
        "select * from almanac_tables.recommendations",
        "delete from almanac.current_recommendations",
        "create table almanac.mine (x integer)",
        "create table almanac_tables.mine (x integer)",
    ):
        with pytest.raises(dbapi.ProgrammingError, match=r"permission denied|cannot delete"):
            database.execute(denied, user=analyst)


def test_a_reader_role_made_later_is_granted_at_the_next_mirror(files: list[Path], database: Database) -> None:
    if database.execute("select 1 from pg_roles where rolname = 'almanac_reader'"):
        database.server.execute(f"alter role almanac_reader rename to {database.name}_earlier")
    mirror(files[0], database.url)  # as a role that may make no roles
    assert not database.execute("select 1 from pg_roles where rolname = 'almanac_reader'")
    database.server.execute("create role almanac_reader nologin")
    assert mirror(files[0], database.url) == NOTHING
    assert database.execute("select has_table_privilege('almanac_reader', 'almanac.run_log', 'select')") == [(True,)]


def test_schemas_made_beforehand_are_enough_for_a_role_that_may_make_none(
    files: list[Path], database: Database
) -> None:
    poor = f"{database.name}_poor"
    database.server.execute(f"create role {poor} login")
    url = database.server.url(database.name, poor)
    assert "grant create on database" in refused(files[0], url)
    database.server.execute(
        f"create schema almanac authorization {poor}",
        f"create schema almanac_tables authorization {poor}",
        database=database.name,
    )
    mirror(files[0], url)
    assert mirror(files[1], url)["recommendations"] == LISTS


def test_refusals_say_what_to_do(files: list[Path], database: Database) -> None:
    server, name = database.server, database.name
    assert mirror(files[0], server.url(name, name, ESCAPED))["recommendations"] == LISTS
    for url, words in {
        server.url(name, name, "geheim"): "give the right user and password",
        server.url(name, "nobody_here", ESCAPED): "give the right user and password",
        server.url("none_here", name, ESCAPED): "correct user and database",
        f"postgresql://{name}:{ESCAPED}@127.0.0.1:1/{name}": "see that the server runs",
        f"postgresql://{name}:{ESCAPED}@no.such.host.invalid/{name}": "see that the server runs",
        f"postgresql://{name}@/{name}?host=/nowhere&password=geheim": "see that the server runs",
        f"postgresql://{name}:{ESCAPED}@127.0.0.1:{server.port}/{name}?wrong=1": "see that the server runs",
    }.items():
        assert words in refused(files[0], url), url


@pytest.mark.parametrize(
    "url",
    [
        "geheim",
        "mysql://me:geheim@host/db",
        "host=h password=geheim",
        "postgresql://me:gehe[im@host/db",
        "postgresql://me:geheim@host:port/db",
        "postgresql://me:50%geheim@host/db",
        f"postgresql://me:{PASSWORD}@host/db",
    ],
)
def test_what_is_no_url_is_refused_without_being_shown(url: str, files: list[Path]) -> None:
    with pytest.raises(UsageError, match="must be postgresql://user:password@host:port/database") as caught:
        mirror(files[0], url)
    assert "geheim" not in str(caught.value) and is_listed(str(caught.value))


@pytest.mark.parametrize("url", ["postgresql://me:a%40geheim@host/db", "postgresql://me@host/db?password=a%40geheim"])
def test_what_a_server_says_is_told_without_the_password(url: str) -> None:
    for secret in ("a%40geheim", "a@geheim", url):
        assert read_url(url).told(Exception(f"FATAL:  cannot use {secret} here")) == "FATAL: cannot use *** here"


def test_a_database_in_another_encoding_is_refused(files: list[Path], postgres_server: Server) -> None:
    name = f"d{uuid4().hex[:8]}"
    latin = "template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
    postgres_server.execute(f"create database {name} {latin}")
    assert "encoding LATIN1; make a database with encoding 'UTF8'" in refused(files[0], postgres_server.url(name))


def test_ids_sort_in_postgresql_as_in_the_file(changed: Path, database: Database) -> None:
    rename = (
        "update recommendations set user_id = case user_id when 'user 00001' then 'Übel' when 'user 00002' then 'a-b'"
    )
    execute(changed, f"{rename} when 'user 00003' then 'aB' when 'user 00004' then 'A b' else user_id end")
    mirror(changed, database.url)
    query = "select distinct user_id from {}current_recommendations order by user_id"
    with duckdb.connect(str(changed), read_only=True) as reader:
        assert database.execute(query.format("almanac.")) == reader.execute(query.format("")).fetchall()


def test_the_documented_queries_run_on_both_alike(files: list[Path], database: Database) -> None:
    queries = re.findall(r"```sql\n(select.*?)```", (SQL.parent / "docs/readers.md").read_text(), re.DOTALL)
    mirror(files[3], database.url)
    with duckdb.connect(str(files[3]), read_only=True) as reader:
        for query in queries:
            known = query.replace("u000004", "user 00004")
            rows = reader.execute(known).fetchall()
            mirrored = database.execute("set search_path = almanac", known)
            assert rows and [[*map(str, row)] for row in mirrored] == [[*map(str, row)] for row in rows]
    assert len(queries) == 3


def test_publishing_with_a_url_serves_both(tmp_path: Path, database: Database) -> None:
    marked = MarkedHome(tmp_path / "home")
    file = marked.publish(0, date(2024, 1, 1), database.url)
    assert_same(database, file)

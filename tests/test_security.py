"""What data carry does no harm where it is shown or stored; what is secret is in no file, page or log."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from benchmarks.local_postgres import PASSWORD, binaries
from flows.cli import _print_summary, app
from tasks.artifacts import inert
from tasks.errors import AlmanacError, RunError, harmless
from tasks.home import check_request
from tasks.serving import VIEWS
from tasks.sources import load_source
from tasks.warehouse import open_warehouse
from tests.hostile_source import (
    AS_OF,
    COLUMNS,
    EVENT_COLUMNS,
    EVENT_TYPE,
    FILE,
    NO_IDS,
    RELATION,
    SAFE_TO_LOAD,
    SOURCE,
    events,
    hostile_source,
    write,
)
from tests.test_report import Page
from tests.tiny_source import event, tiny_source

TABLES = {"raw.interactions", "raw.items", "raw.facts", "raw.contracts", "mart.runs", "mart.recommendations"}
TAGS = {"html", "head", "meta", "title", "style", "body", "script", "h1", "h2", "h3", "p", "div", "span", "table", "tr"}
HIDDEN = "hunter2secret"  # the password of a server that does not answer


@dataclass(frozen=True)
class Attacked:
    """The home into which the hostile source was published, and what a run showed."""

    root: Path
    summary: dict[str, Any]
    postgres: str | None  # URL of the database to which it was mirrored, where there is a server

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def source(self) -> Path:
        return self.root / SOURCE

    def rows(self, query: str) -> list[tuple]:
        with open_warehouse(self.home) as warehouse:
            return warehouse.execute(query).fetchall()


@contextmanager
def mask(bits: int) -> Iterator[None]:
    """With another umask."""
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def attacked(prefect: None, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Attacked:
    """Published by the real flow, to PostgreSQL too where there is one; treat as read-only."""
    from flows.configuration import RunConfig
    from flows.daily import daily

    tiny, url = hostile_source(tmp_path_factory.mktemp("attacked")), None
    if binaries():
        server, name = request.getfixturevalue("postgres_server"), f"d{uuid4().hex[:8]}"
        server.execute(f"create role {name} login password '{PASSWORD}'", f"create database {name} owner {name}")
        url = server.url(name, name)
    config: dict[str, Any] = {"source": str(tiny.root / SOURCE), "input": tiny.input, "home": tiny.home}
    config |= {"as_of": AS_OF, "postgres": url, "baselines": ("popularity", "personal_repeat")}
    with mask(0o022):
        summary = daily(RunConfig(**config))
    return Attacked(tiny.root, summary, url)  # pyright: ignore[reportArgumentType]


def shown(*arguments: object) -> str:
    """What a command prints, in which a terminal finds nothing to act on."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert_inert(result.output)
    return result.output


def assert_inert(text: str) -> None:
    assert {sign for sign in text if not sign.isprintable()} <= {"\n"}


def test_rows_are_loaded_as_they_are_or_quarantined_and_every_table_stands(attacked: Attacked) -> None:
    users = {user for (user,) in attacked.rows("select distinct user_id from raw.interactions")}
    assert users == set(SAFE_TO_LOAD)
    assert attacked.rows("select count(*) from quarantine.rows") == [(len(NO_IDS),)]
    assert attacked.rows("select distinct event_type from raw.interactions") == [(EVENT_TYPE,)]
    assert attacked.rows("select distinct relation from raw.facts") == [(RELATION,)]
    tables = {table for (table,) in attacked.rows("select schema_name || '.' || table_name from duckdb_tables()")}
    assert tables >= TABLES
    counts = {fate: count for *_, fate, _, count in attacked.summary["accounting"] if fate == "quarantined"}
    assert counts and attacked.rows("select status from mart.runs") == [("published",)]
    assert not any("passwd" in str(path) for path in attacked.root.rglob("*"))


def test_every_user_gets_the_list_and_bi_views_hold_ids_as_they_were_delivered(attacked: Attacked) -> None:
    with duckdb.connect(str(attacked.home / "serving" / "almanac.duckdb"), read_only=True) as reader:
        views = {
            name for (name,) in reader.execute("select view_name from duckdb_views() where not internal").fetchall()
        }
        assert views == set(VIEWS)
        for view in VIEWS:
            reader.execute(f"from {view}").fetchall()
        users = reader.execute("select distinct user_id from current_recommendations").fetchall()
        items = reader.execute("select distinct item_id from current_recommendations").fetchall()
    assert {user for (user,) in users} == set(SAFE_TO_LOAD) == {item for (item,) in items}


def test_the_terminal_shows_what_data_carry_and_acts_on_none_of_it(
    attacked: Attacked, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_summary(attacked.summary, attacked.home)
    assert_inert(capsys.readouterr().out)
    for user in SAFE_TO_LOAD:
        assert "for_you of" in shown("show", "--home", attacked.home, "--", user)
    everything = " ".join(shown("show", "--home", attacked.home, "--", "u1").split())
    for text in ("[/]", "[red]a[/red]", "[link=https://evil.example]a[/link]", "<script>alert(1)</script>"):
        assert text in everything, "markup is shown, not obeyed"
    assert AS_OF.isoformat() in shown("status", "--home", attacked.home)
    assert '"served"' in shown("status", "--json", "--home", attacked.home)
    assert "sou'rce [red]" in shown("models", "--home", attacked.home)
    assert "quarantined" in shown("sources", "check", attacked.source, "--input", attacked.root / "input")


def test_a_draft_from_hostile_files_is_a_source_that_reads_them_and_looks_like_what_it_is(tmp_path: Path) -> None:
    files, folder = tmp_path / "files", tmp_path / "drafted"
    files.mkdir()
    write(files / FILE, EVENT_COLUMNS, events()[: -len(NO_IDS)])
    write(files / f"items-{FILE[13:]}", ["item_id", *COLUMNS], [[item, *COLUMNS] for item in SAFE_TO_LOAD])
    said = shown("sources", "new", "drafted", "--from", files, "--to", folder)
    assert "drafted" in said and f"{len(SAFE_TO_LOAD)} users" in said
    assert sorted(path.name for path in folder.iterdir()) == ["interactions.sql", "items.sql", "source.toml"]
    for file in folder.iterdir():
        assert_inert(file.read_text())


def test_a_message_shows_no_sign_that_a_terminal_acts_on(attacked: Attacked) -> None:
    for text in (*SAFE_TO_LOAD, *NO_IDS):
        assert_inert(str(AlmanacError(text)))
    result = CliRunner().invoke(app, ["show", "\x1b[31m[red]\N{RIGHT-TO-LEFT OVERRIDE}", "--home", str(attacked.home)])
    assert result.exit_code == 2 and "[red]" in result.stderr
    assert_inert(result.stderr)
    result = CliRunner().invoke(app, ["show", "\x1b[31m", "--verbose", "--home", str(attacked.home)])
    assert result.exit_code == 2 and "Traceback" in result.stderr
    assert_inert(result.stderr)


class Tags(HTMLParser):
    """The elements of a piece of HTML, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_prefects_artifacts_are_words_when_taken_for_markdown(attacked: Attacked) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        artifacts = [
            one for one in client.read_artifacts(limit=200) if (one.key or "").endswith("img-src-x-onerror-alert-1")
        ]
    assert {str(one.key).split("-")[0] for one in artifacts} == {"quality", "metrics", "lists"}
    data = " ".join(str(one.data) for one in artifacts)
    assert "script" in data or "passwd" in data or "evil" in data, "the sample holds hostile ids"
    for artifact in artifacts:
        assert re.fullmatch("[a-z0-9-]+", str(artifact.key))
        for row in __import__("json").loads(str(artifact.data)):
            for value in filter(lambda value: isinstance(value, str), row.values()):
                assert_words(value)


def assert_words(cell: str) -> None:
    """Rendered, with HTML and links allowed, it is one paragraph of text."""
    assert [tag for tag, _ in Tags(MarkdownIt("commonmark", {"html": True}).render(cell)).found] in (["p"], [])
    assert not re.search(r"(?<!\\)[<>|\[\]`]|(?<!\\)://", cell)


@pytest.mark.parametrize("text", [*SAFE_TO_LOAD, *NO_IDS, EVENT_TYPE, RELATION])
def test_a_cell_says_what_the_text_said(text: str) -> None:
    (row,) = inert([{"text": text, "number": 1}])
    assert row["number"] == 1
    assert_words(row["text"])
    said = re.sub(r"\\([\\`*~\[\]<>|!#&$@:.])", r"\1", row["text"])
    assert said == harmless(text).replace("\n", " ")


def test_the_report_of_a_backtest_holds_no_element_and_no_attribute_from_data(
    attacked: Attacked, tmp_path: Path
) -> None:
    from flows.backtest import rolling
    from flows.configuration import BacktestConfig

    config: dict[str, Any] = {
        "source": str(attacked.source),
        "input": attacked.root / "input",
        "home": tmp_path / "home",
    }
    config |= {"origins": (AS_OF.replace(month=3, day=20),), "models": ("popularity",), "tune": False, "processes": 1}
    done: dict[str, Any] = rolling(BacktestConfig(**config))  # pyright: ignore[reportAssignmentType]
    page = Page(done["report"])
    assert "sou'rce [red] <img src=x onerror=alert(1)>" in page.text
    assert "img" not in page.tags and page.tags.count("script") <= 3
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for _, value in page.attributes if "javascript:" in value or "alert(1)" in value]


def test_postgresql_holds_the_same_ids_and_nothing_else_happened(attacked: Attacked) -> None:
    if attacked.postgres is None:
        pytest.skip("no PostgreSQL server is installed")
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(attacked.postgres) as connection, connection.cursor() as cursor:
        cursor.execute("select distinct user_id from almanac.current_recommendations")
        assert {user for (user,) in cursor.fetchall()} == set(SAFE_TO_LOAD)
        cursor.execute("select count(*) from information_schema.views where table_schema = 'almanac'")
        assert cursor.fetchone() == (len(VIEWS),)


def everywhere(home: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a home, and Prefect's database, by name."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    database = Path(url.get_secret_value().split(":///")[1])
    for path in [*home.rglob("*"), *database.parent.glob(f"{database.name}*")]:
        if path.is_file():
            yield path.name, path.read_bytes()


def test_the_password_of_postgresql_is_in_no_file_of_the_home_and_not_in_prefects_database(attacked: Attacked) -> None:
    if attacked.postgres is None:
        pytest.skip("no PostgreSQL server is installed")
    assert PASSWORD not in str(attacked.summary)
    held = [name for name, content in everywhere(attacked.home) if PASSWORD.encode() in content]
    assert held == []


@pytest.mark.parametrize("variable", [None, "ALMANAC_TEST_POSTGRES"])
def test_a_server_that_cannot_be_reached_is_told_of_without_its_password(
    variable: str | None,
    attacked: Attacked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import shutil

    from flows.configuration import RunConfig
    from flows.daily import daily

    home, url = tmp_path / "home", f"postgresql://bob:{HIDDEN}@127.0.0.1:1/shop"
    shutil.copytree(attacked.home, home, symlinks=True)
    if variable:
        monkeypatch.setenv(variable, url)
    config: dict[str, Any] = {"source": str(attacked.source), "input": attacked.root / "input", "home": home}
    config |= {
        "as_of": AS_OF + timedelta(days=1),
        "retrain": "never",
        "postgres": f"env:{variable}" if variable else url,
    }
    with pytest.raises(RunError, match=r"PostgreSQL 127\.0\.0\.1:1/shop was not brought up to date") as caught:
        daily(RunConfig(**config))
    told = capfd.readouterr()
    assert HIDDEN not in told.out + told.err + caplog.text + repr(caught.getrepr(style="long", showlocals=False))
    assert [name for name, content in everywhere(home) if HIDDEN.encode() in content] == []
    with open_warehouse(home) as warehouse:
        runs = warehouse.execute("select config, message from mart.runs order by started_at desc limit 1").fetchall()
    assert "was not brought up to date" in runs[0][1] and "***" in runs[0][0]


def modes(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode)
        for path in home.rglob("*")
        if not path.is_symlink()
    }


def test_readers_can_read_what_is_served_and_nobody_else_can_write(attacked: Attacked) -> None:
    found = modes(attacked.home)
    assert [name for name, mode in found.items() if mode & 0o022] == []
    assert (
        found["serving"] == 0o755 and stat.S_IMODE((attacked.home / "serving/almanac.duckdb").stat().st_mode) == 0o644
    )


def test_a_stricter_umask_is_kept(tmp_path: Path) -> None:
    with mask(0o077):
        tiny = tiny_source(tmp_path / "tiny")
        tiny.deliver("interactions.csv", [event()])
        tiny.ingest(AS_OF)
    assert [name for name, mode in modes(tiny.home).items() if mode & 0o077] == []


def test_prefects_folder_and_the_key_of_the_forgotten_are_their_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.terminal import prepare_prefect
    from tasks.forgotten import make_key

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))  # stays as it is
    with mask(0):
        prepare_prefect(tmp_path / "home", verbose=False)
        make_key(tmp_path / "home")
        (tmp_path / "home" / "file").touch()
    assert modes(tmp_path / "home") == {"prefect": 0o700, "forget.key": 0o600, "file": 0o664}


@pytest.mark.parametrize("sign", ["*", "?", "["])
def test_a_path_that_would_be_taken_for_a_pattern_is_refused(sign: str, tmp_path: Path) -> None:
    from tasks.errors import UsageError

    (tmp_path / f"a{sign}b").mkdir()
    for home, files in ((tmp_path / f"a{sign}b", tmp_path), (tmp_path / "home", tmp_path / f"a{sign}b")):
        with pytest.raises(UsageError, match="names of files are matched by"):
            check_request(home, load_source("shop"), files)

"""A forgotten user is in no table, file or byte below the home, and stays out of what is delivered later."""

from __future__ import annotations

import secrets
import shutil
import stat
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from benchmarks.local_postgres import Server
from flows.cli_forget import forget_user as command
from tasks.errors import RunError, UsageError
from tasks.forget import forget_user
from tasks.forgotten import WITHHELD, user_hash
from tasks.ingest import source_snapshot
from tasks.postgres import mirror
from tasks.transform import build_graph, build_staging
from tasks.warehouse import connect, exclusive, open_warehouse
from tests.conftest import publish
from tests.tiny_source import Row, TinySource, event, tiny_source
from tests.world import SHOP, end_date, write_world

AS_OF = date(2024, 4, 1)
SMALL: dict[str, Any] = {"users": 60, "items": 40, "days": 200}
LAST = end_date(**(SHOP | SMALL))
CHEAP = ("popularity",)
FORGOTTEN = ("excluded", "forgotten user")


def places(home: Path, *marks: str) -> set[str]:
    """Every table, Parquet file and file below a home that holds one of the marks, as a value or as bytes."""
    found = set()
    for path in sorted(home.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(home))
        content = path.read_bytes()
        found |= {name for mark in marks if mark.encode() in content}
        relations = [f"read_parquet('{path}')"] if path.suffix == ".parquet" else []
        with connect(path if path.suffix == ".duckdb" else None, read_only=path.suffix == ".duckdb") as reader:
            tables = "select schema_name || '.' || table_name from duckdb_tables()"
            relations += [table for (table,) in reader.execute(tables).fetchall()]
            for relation in relations:
                held = f"select count(*) from {relation} as held where contains(cast(held as varchar), $mark)"
                if any(reader.execute(held, {"mark": mark}).fetchall()[0][0] for mark in marks):
                    found.add(f"{name}: {relation}" if path.suffix == ".duckdb" else f"{name}: rows")
    return found


@pytest.fixture(scope="module")
def marked(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, str]:
    """A shop published for two dates in which the busiest user's id and country are random: input, home, id, country."""
    root = tmp_path_factory.mktemp("marked")
    files, home, country = root / "files", root / "home", secrets.token_hex(12)
    ids = pl.DataFrame({"id": [secrets.token_hex(12) for _ in range(5_000)]})
    with connect() as connection:  # the sample of lists that Prefect shows takes the smallest hashes
        connection.register("ids", ids.to_arrow())
        user = connection.execute("select id from ids order by hash(id) limit 1").fetchall()[0][0]
    files.mkdir()
    write_world(files, **SMALL)
    log = pl.read_parquet(files / "interactions.parquet")
    busiest = log.drop_nulls("user_id")["user_id"].value_counts(sort=True)["user_id"][0]
    is_theirs = pl.col("user_id") == busiest
    for path in files.glob("*.parquet"):
        rows = pl.read_parquet(path)
        if path.stem == "users":
            rows = rows.with_columns(country=pl.when(is_theirs).then(pl.lit(country)).otherwise(pl.col("country")))
        names = [name for name in rows.columns if name.endswith("user_id")]
        rows.with_columns(pl.col(name).replace(busiest, user) for name in names).write_parquet(path)
    for as_of in (LAST - timedelta(days=7), LAST):
        publish(files, home, as_of, baselines=CHEAP)
    return files, home, user, country


def keep_prefect_state(home: Path) -> None:
    """Puts Prefect's database, with what the runs showed there, where a run from the command line keeps it."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    assert url is not None
    (home / "prefect").mkdir(exist_ok=True)
    source = Path(url.get_secret_value().split(":///")[1])
    for path in source.parent.glob(f"{source.name}*"):
        shutil.copyfile(path, home / "prefect" / path.name)


def artifacts_with(mark: str) -> int:
    """Prefect's artifacts that hold the mark, asked from its server."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return sum(mark in str(artifact.data) for artifact in client.read_artifacts(limit=200))


def test_a_published_user_is_gone_from_every_table_and_byte_and_does_not_come_back(
    marked: tuple[Path, Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, published, user, country = marked
    home = tmp_path / "home"
    shutil.copytree(published, home, symlinks=True)
    keep_prefect_state(home)
    (home / "backtests" / "origins").mkdir(parents=True)
    (home / "backtests" / "origins" / "2021-07-01.pt").write_text(user)
    (home / "landing").mkdir()
    shutil.copytree(files, home / "landing" / "shop")
    with open_warehouse(home) as warehouse:
        warehouse.execute("update mart.runs set message = $told", {"told": f"cannot read '{user}' of {country}: 12"})
    before = places(home, user, country)
    versions = [path for path in (home / "serving").glob("*.duckdb") if not path.is_symlink()]
    assert len(versions) == 2
    must_name = {
        f"warehouse.duckdb: {table}" for table in ("raw.users", "raw.links", "mart.recommendations", "mart.runs")
    }
    must_name |= {f"serving/{path.name}: main.recommendations" for path in versions}
    must_name |= {
        f"serving/recommendations/as_of={LAST}/recommendations.parquet: rows",
        "landing/shop/users.parquet: rows",
    }
    assert must_name - before == set()
    assert any(name.startswith("prefect/") for name in before)

    with connect(home / "serving" / "almanac.duckdb", read_only=True) as reader:
        old = reader.execute("select count(*) from current_recommendations").fetchall()[0][0]
        done = forget_user(home, user)
        assert reader.execute("select count(*) from current_recommendations").fetchall()[0][0] == old
    assert done["rows"]["raw.users"] == 1 and done["rows"]["mart.recommendations"] > 40
    assert done["left"] == []
    assert places(home, user, country) == set()
    with open_warehouse(home) as warehouse:
        assert warehouse.execute("select distinct message from mart.runs").fetchall() == [
            ("cannot read '[forgotten]' of [forgotten]: 12",)
        ]
        assert len(warehouse.execute("from mart.publications").fetchall()) == 2
    with connect((home / "serving" / "almanac.duckdb").resolve(), read_only=True) as reader:
        assert 0 < reader.execute("select count(*) from current_recommendations").fetchall()[0][0] < old
        comment = (
            "select comment from duckdb_columns() where table_name = 'current_recommendations' and column_name = 'rank'"
        )
        assert reader.execute(comment).fetchall()[0][0]

    shutil.rmtree(home / "landing")
    summary = publish(files, home, LAST, baselines=CHEAP)
    assert summary["nodes"]["user_nodes"] > 40
    assert places(home, user, country) == set()
    monkeypatch.setenv("PREFECT_API_URL", "set")
    assert forget_user(home, user)["artifacts"] > 0, "and again, with a server elsewhere"
    assert artifacts_with(user) == 0


@pytest.fixture
def tiny(tmp_path: Path) -> TinySource:
    """Two users' events, links and attributes; one row of ann's is excluded, one broken, one line cannot be read."""
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "users", "links"))
    tiny.deliver(
        "interactions.csv",
        [
            event("ann"),
            event("ann", "i2", excluded="test"),
            event("ann", "i3", value="-1"),
            event("bob"),
            event("ann", at="2024-03-02 10:00:00"),
            event(" ann ", "i9", at="2024-03-02 10:00:00"),
            event("bob", "i9", value="-1"),
        ],
    )
    tiny.deliver("users.csv", [person("ann", "Atlantis"), person("bob", "FR"), person("joe", "FR")])
    tiny.deliver("links.csv", [link("ann", "bob"), link("bob", "ann"), link("bob", "joe")])
    return tiny


def person(name: str, country: str) -> Row:
    return {"user_id": name, "valid_from": "2024-01-01", "country": country, "age": "3"}


def link(name: str, other: str) -> Row:
    return {"user_id": name, "other_user_id": other, "relation": "friend", "strength": "1", "since": ""}


def users_of(tiny: TinySource) -> list[str]:
    return [user for (user,) in tiny.rows("select distinct user_id from raw.interactions order by all")]


def test_the_rows_count_as_excluded_before_and_after_the_next_delivery(tiny: TinySource) -> None:
    first = tiny.ingest(AS_OF)["interactions.csv"]
    assert first["loaded", None] == 3 and first["excluded", "test"] == 1
    with open_warehouse(tiny.home) as warehouse:
        before = source_snapshot(warehouse, AS_OF)
    done = forget_user(tiny.home, "ann")
    with open_warehouse(tiny.home) as warehouse:
        assert source_snapshot(warehouse, AS_OF) != before, (
            "nothing made from the old rows passes for made from the new"
        )
    assert done["rows"] | {"raw.interactions": 3, "raw.users": 1, "raw.links": 2, "quarantine.rows": 2} == done["rows"]
    ledger = "select key, sum(value) from (select unnest(map_entries(fates), recursive := true) from raw.deliveries"
    ledger += " where table_name = 'interactions' and superseded_at is null) group by all order by all"
    counted = [("excluded: forgotten user", 5), ("kept", 1), ("quarantined: value negative or not finite", 1)]
    assert tiny.rows(ledger) == counted
    again = tiny.ingest(AS_OF)
    quarantined = ("quarantined", "value negative or not finite")
    assert again["interactions.csv"] == {FORGOTTEN: 5, ("loaded", None): 1, quarantined: 1}
    assert again["users.csv"] == {FORGOTTEN: 1, ("loaded", None): 2}
    assert again["links.csv"] == {FORGOTTEN: 2, ("loaded", None): 1}
    assert tiny.rows(ledger) == counted
    versions = tiny.rows("from raw.deliveries order by all")
    assert tiny.ingest(AS_OF)["interactions.csv"] == {FORGOTTEN: 5, ("unchanged", None): 1, quarantined: 1}
    assert tiny.rows("from raw.deliveries order by all") == versions, "changed once, then known again"
    assert users_of(tiny) == ["bob"]


def test_what_is_left_equals_a_source_that_never_had_the_user(tiny: TinySource, tmp_path: Path) -> None:
    tiny.ingest(AS_OF)
    forget_user(tiny.home, "ann")
    tiny.ingest(AS_OF)
    other = tiny_source(tmp_path / "other", tables=("interactions", "users", "links"))
    other.deliver("interactions.csv", [event("bob")])
    other.deliver("users.csv", [person("bob", "FR"), person("joe", "FR")])
    other.deliver("links.csv", [link("bob", "joe")])
    other.ingest(AS_OF)
    for each in (tiny, other):
        build_staging(each.home, each.source, AS_OF)
        build_graph(each.home, each.source, AS_OF)
    for table in ("staging.users", "staging.interactions", "staging.links", "staging.attributes", "graph.user_nodes"):
        assert tiny.rows(f"from {table} order by all") == other.rows(f"from {table} order by all")


def test_a_user_may_be_forgotten_before_any_row_comes(tiny: TinySource) -> None:
    shutil.move(tiny.input / "users.csv", tiny.root / "users.csv")
    tiny.deliver("interactions.csv", [event("bob")])
    (tiny.root / "source" / "users.sql").rename(tiny.root / "users.sql")
    (tiny.root / "source" / "links.sql").unlink()
    tiny.ingest(AS_OF)
    with pytest.raises(UsageError, match=r"no user 'ann'.*--force"):
        forget_user(tiny.home, "ann")
    assert not (tiny.home / "forget.key").exists()
    forget_user(tiny.home, "ann", force=True)
    (tiny.root / "users.sql").rename(tiny.root / "source" / "users.sql")
    shutil.move(tiny.root / "users.csv", tiny.input / "users.csv")
    tiny.deliver("interactions-2.csv", [event("ann"), event("ann", at="2024-03-02"), event("bob", at="2024-03-03")])
    fates = tiny.ingest(AS_OF)
    assert fates["interactions-2.csv"] == {FORGOTTEN: 2, ("loaded", None): 1}
    assert fates["users.csv"] == {FORGOTTEN: 1, ("loaded", None): 2}
    assert users_of(tiny) == ["bob"]
    assert tiny.ingest(AS_OF)["interactions-2.csv"] == {FORGOTTEN: 2, ("unchanged", None): 1}


def test_the_text_of_a_broken_row_that_names_the_user_is_withheld(tmp_path: Path) -> None:
    user, tiny = "ann-lee 1", tiny_source(tmp_path / "tiny", tables=("interactions",))
    query = (tiny.root / "source" / "interactions.sql").read_text()
    tiny.adapt("interactions", query.replace("select ", "select nullif(broken, '') as raw_text, ", 1))
    rows = [event("bob"), event(user)] + [event("", at="2024-03-02") for _ in range(3)]
    texts = ["", "", f'x;"{user}"', f"{user},i1", "xann-lee 1"]
    tiny.deliver("interactions.csv", [row | {"broken": text} for row, text in zip(rows, texts, strict=True)])
    quarantined = "select raw_text from quarantine.rows where superseded_at is null order by source_row"
    tiny.ingest(AS_OF)
    assert tiny.rows(quarantined) == [(text,) for text in texts[2:]]
    forget_user(tiny.home, user)
    assert tiny.rows(quarantined)[:2] == [(WITHHELD,), (WITHHELD,)]
    fates = tiny.ingest(AS_OF)["interactions.csv"]
    assert fates == {("loaded", None): 1, FORGOTTEN: 1, ("quarantined", "unreadable"): 3}
    assert tiny.rows(quarantined)[:2] == [(WITHHELD,), (WITHHELD,)]


def test_beyond_the_look_back_a_day_of_the_user_stays_settled(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="look_back_days = 2")
    rows = [event(user, at=f"2024-03-{day:02}") for day in (1, 8, 9) for user in ("ann", "bob")]
    tiny.deliver("interactions.csv", rows)
    tiny.ingest(AS_OF)
    forget_user(tiny.home, "ann")
    assert tiny.ingest(AS_OF)["interactions.csv"] == {FORGOTTEN: 3, ("loaded", None): 2, ("unchanged", None): 1}
    assert users_of(tiny) == ["bob"]
    tiny.deliver("interactions.csv", [event("cid", at="2024-03-01"), *rows])
    assert tiny.ingest(AS_OF)["interactions.csv"] == {FORGOTTEN: 3, ("loaded", None): 2, ("unchanged", None): 2}
    assert users_of(tiny) == ["bob", "cid"]


def test_a_day_that_comes_to_hold_nobody_else_loses_what_it_held(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event("ann"), event("bob", at="2024-03-02")])
    tiny.ingest(AS_OF)
    forget_user(tiny.home, "ann")
    tiny.deliver("interactions.csv", [event("cid"), event("bob", at="2024-03-02")])
    tiny.ingest(AS_OF)
    assert users_of(tiny) == ["bob", "cid"]
    tiny.deliver("interactions.csv", [event("ann"), event("bob", at="2024-03-02")])
    assert tiny.ingest(AS_OF)["interactions.csv"] == {FORGOTTEN: 1, ("unchanged", None): 1}
    assert tiny.rows("select user_id from raw.interactions where superseded_at is null") == [("bob",)]


def test_only_a_keyed_hash_is_kept_under_a_key_only_the_owner_reads(tiny: TinySource) -> None:
    tiny.ingest(AS_OF)
    forget_user(tiny.home, "ann")
    forget_user(tiny.home, "ann")
    key = tiny.home / "forget.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    assert tiny.rows("select user_hash from raw.forgotten") == [(user_hash(key.read_bytes(), "ann"),)]
    key.unlink()
    with pytest.raises(RunError, match=r"forget\.key is gone"):
        tiny.ingest(AS_OF)


def test_killed_before_the_warehouse_is_replaced_it_is_as_it_was_and_the_next_call_finishes(
    tiny: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.ingest(AS_OF)
    before = tiny.rows("from raw.interactions order by all")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("tasks.forget._keep_hash", killed)
        with pytest.raises(KeyboardInterrupt):
            forget_user(tiny.home, "ann")
    assert tiny.rows("from raw.interactions order by all") == before
    assert not list(tiny.home.glob(".*.partial")), "the room it took is free again"
    (tiny.home / ".warehouse.duckdb.partial").write_text("the kernel lets nobody clean up")
    assert forget_user(tiny.home, "ann")["rows"]["raw.interactions"] == 3
    assert users_of(tiny) == ["bob"] and not list(tiny.home.glob(".*.partial"))


def test_a_short_id_leaves_numbers_and_other_ids_alone(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event("12", "12"), event("3", "12"), event("123", "i12")])
    tiny.ingest(AS_OF)
    with open_warehouse(tiny.home) as warehouse:
        warehouse.execute("create table mart.runs (run_id varchar, message varchar, config varchar)")
        warehouse.execute("""insert into mart.runs values ('12', 'row 12, 123 and 12.', '{"top_k": 12}')""")
    done = forget_user(tiny.home, "12")
    assert tiny.rows("select user_id, item_id from raw.interactions order by all") == [("123", "i12"), ("3", "12")]
    assert tiny.rows("from mart.runs") == [("12", "row [forgotten], 123 and [forgotten].", '{"top_k": 12}')]
    assert done["left"] == []


def test_a_telling_id_that_stands_in_anothers_row_is_reported(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event("seller-77"), event("bob", "sold by seller-77")])
    tiny.ingest(AS_OF)
    left = forget_user(tiny.home, "seller-77")["left"]
    assert left == ["raw.interactions (1 rows that are not the user's own)", "warehouse.duckdb"]


def test_nothing_is_done_while_a_run_or_a_server_is_at_work(tiny: TinySource) -> None:
    with pytest.raises(UsageError, match="nothing has run"):
        forget_user(tiny.home, "ann")
    tiny.ingest(AS_OF)
    with exclusive(tiny.home), pytest.raises(UsageError, match="another run is writing"):
        forget_user(tiny.home, "ann")
    import fcntl

    (tiny.home / "prefect").mkdir()
    with (tiny.home / "prefect" / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="almanac serve"):
            forget_user(tiny.home, "ann")
    assert "ann" in users_of(tiny)


def test_the_command_says_what_it_removed_and_what_is_left_to_do(tiny: TinySource) -> None:
    import typer

    app = typer.Typer()
    app.command("forget-user")(command)
    tiny.ingest(AS_OF)
    done = CliRunner().invoke(app, ["ann", "--home", str(tiny.home)])
    assert done.exit_code == 0, done.output
    assert "3 rows of raw.interactions" in done.output and "input files are yours to clean" in done.output
    unknown = CliRunner().invoke(app, ["zoe", "--home", str(tiny.home)])
    assert unknown.exit_code == 2
    assert CliRunner().invoke(app, ["zoe", "--home", str(tiny.home), "--force"]).exit_code == 0


def test_postgresql_holds_the_user_no_more(
    marked: tuple[Path, Path, str, str], postgres_server: Server, tmp_path: Path
) -> None:
    _, published, user, _ = marked
    home, url = tmp_path / "home", postgres_server.url("forgetting")
    shutil.copytree(published, home, symlinks=True)
    postgres_server.execute("create database forgetting")
    mirror((home / "serving" / "almanac.duckdb").resolve(), url)

    def counted() -> tuple[int, int]:
        """Rows of the user, and files of the server's tables that hold the id."""
        lists = "select count(*) from almanac.recommendations_history where user_id = $1"
        rows = postgres_server.execute(lists.replace("$1", f"'{user}'"), database="forgetting")[0][0]
        postgres_server.execute("checkpoint", database="forgetting")
        files = [path for path in (postgres_server.folder / "data" / "base").rglob("*") if path.is_file()]
        return rows, sum(user.encode() in path.read_bytes() for path in files)

    rows, files = counted()
    assert rows > 0 and files > 0
    forget_user(home, user, url)
    assert counted() == (0, 0)
    assert postgres_server.execute("select count(*) > 0 from almanac.current_recommendations", database="forgetting")[
        0
    ][0]

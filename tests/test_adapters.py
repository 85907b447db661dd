"""A source's SELECT reads the input and nothing else, and no file of a home is ever run as code."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import torch
from duckdb import DuckDBPyConnection

from models.settings import ModelSettings
from tasks.adapters import read_adapter
from tasks.errors import ContractError, RunError
from tasks.forgotten import make_key
from tasks.recommend import score, train
from tasks.registry import artifact, register
from tasks.snapshots import is_whole, read_graph, store
from tasks.sources import load_source
from tasks.warehouse import SQL, connect, open_warehouse, restrict
from tests.conftest import Published
from tests.tiny_source import TinySource, csv_select, event, tiny_source

ROOT = Path(__file__).resolve().parent.parent
AS_OF = date(2024, 4, 1)
SECRET = "what nobody should read"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """A tiny source with a loaded home, and secrets beside it, in the home and behind links in the input."""
    tiny = tiny_source(tmp_path_factory.mktemp("house") / "tiny", tables=("interactions", "items"))
    tiny.deliver("interactions.csv", [event()])
    tiny.deliver(
        "items.csv",
        [{"item_id": "i1", "valid_from": "", "valid_to": "", "brand": "", "tags": "", "price": "", "made": ""}],
    )
    tiny.ingest(AS_OF)
    for folder in ("outside", "home"):
        (tiny.root / folder).mkdir(exist_ok=True)
        (tiny.root / folder / "secret.csv").write_text(f"a\n{SECRET}\n")
    make_key(tiny.home)
    (tiny.input / "way").symlink_to(tiny.root / "outside")
    (tiny.input / "link.csv").symlink_to(tiny.root / "outside" / "secret.csv")
    with open_warehouse(tiny.home) as warehouse:
        warehouse.execute(f"create table mart.recommendations as select '{SECRET}' as a")
    return tiny


OUTSIDE = [
    "read_csv('/etc/passwd')",
    "read_text('/etc/hostname')",
    "read_blob('/etc/passwd')",
    "glob('/**')",
    "glob('/etc/*')",
    "sniff_csv('/etc/passwd')",
    "read_text('file:///etc/passwd')",
    "read_text('~/.bashrc')",
    "read_csv('https://example.com/a.csv')",
    "read_parquet('s3://bucket/a.parquet')",
    "read_csv(getvariable('input') || '/../outside/secret.csv')",
    "read_text(getvariable('input') || '/./../home/forget.key')",
    "read_text('{home}/forget.key')",
    "read_csv('{home}/secret.csv')",
    "read_text('{home}/home.json')",
    "glob('{home}/*')",
    "read_csv('{root}/outside/secret.csv')",
    "read_csv(getvariable('input') || '/link.csv')",
    "read_csv(getvariable('input') || '/way/secret.csv')",
    "read_csv(getvariable('input') || '/w*/*.csv')",
]
FOREIGN = [
    "mart.recommendations",
    "raw.interactions",
    "warehouse.mart.recommendations",
    "information_schema.tables",
    "duckdb_tables()",
    "duckdb_settings()",
    "duckdb_secrets()",
    "query('from mart.recommendations')",
    "query_table('mart.recommendations')",
    "query_table(['mart.recommendations'])",
    "pragma_table_info('mart.recommendations')",
    "read_duckdb('{home}/warehouse.duckdb')",
    "parquet_metadata('{root}/outside/secret.csv')",
    "checkpoint()",
    "(show tables)",
    "(describe mart.recommendations)",
    "(summarize mart.recommendations)",
    "'{root}/outside/secret.csv'",
    "(select 1 where exists (from mart.recommendations))",
    "(with a as (from mart.recommendations) from a)",
    "(with recommendations as (select 1) from mart.recommendations)",
    "(with a as (from a) from a)",
    "(with a as (from b), b as (select 1) from a)",
    "((with b as (select 1) from b) cross join b)",
    "(select (select a from mart.recommendations))",
    "(pivot mart.recommendations on a in ('x') using count(*))",
    "(select [x for x in (select list(a) from mart.recommendations)])",
    "(select 1 union all by name from mart.recommendations)",
    "main.adapter_interactions",
    "(with a as (insert into mart.recommendations values ('b') returning *) from a)",
    "(with a as (delete from mart.recommendations returning *) from a)",
    "(with a as (update mart.recommendations set a = 'b' returning *) from a)",
    "(with a as (copy (select 1) to '{root}/input/copied.csv') from a)",
]
STATEMENTS = [
    "copy (select 1) to '{root}/copied.csv'",
    "attach '{root}/other.duckdb' as other",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "reset allowed_directories",
    "pragma enable_profiling",
    "call duckdb_tables()",
    "create secret (type s3)",
    "export database '{root}/exported'",
    "import database '{root}/exported'",
    "select 1; drop table mart.recommendations",
    "delete from mart.recommendations",
]


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "spill" not in path.parts}


def refused(house: TinySource, query: str, table: str) -> str:
    """The message with which a SELECT is refused; no file came, no row went."""
    before, path = files_below(house.root), house.root / "source" / f"{table}.sql"
    path.write_text(query)
    try:
        with pytest.raises(ContractError) as caught:
            house.land(AS_OF)
    finally:
        path.write_text(csv_select(table))
    assert files_below(house.root) == before
    assert house.rows("from mart.recommendations") == [(SECRET,)]
    assert house.rows("select user_id from raw.interactions") == [("u1",)]
    assert SECRET not in str(caught.value) and "root:" not in str(caught.value)
    return str(caught.value)


def reading(house: TinySource, what: str, table: str) -> str:
    """The table's good SELECT with a further value, read from somewhere."""
    what = what.format(home=house.home, root=house.root)
    return csv_select(table).replace("select ", f"select (select count(*) from {what}) as stolen, ", 1)


@pytest.fixture
def unseen(house: TinySource) -> TinySource:
    """The house before any contract was recorded, so that a SELECT is judged for itself."""
    with open_warehouse(house.home) as warehouse:
        warehouse.execute("drop table if exists raw.contracts")
    return house


@pytest.fixture(scope="module")
def restricted(house: TinySource) -> Iterator[DuckDBPyConnection]:
    """A connection as the one on which adapters run."""
    with connect() as connection:
        restrict(connection, house.input)
        connection.execute((SQL / "text_files.sql").read_text())
        yield connection


def asked(connection: DuckDBPyConnection, query: str, folder: Path) -> list[tuple]:
    """What a SELECT gives where adapters run."""
    path = folder / "items.sql"
    path.write_text(query)
    return connection.execute(read_adapter(path, connection)).fetchall()


@pytest.mark.parametrize("what", OUTSIDE)
def test_no_file_outside_the_input_is_read(
    what: str, house: TinySource, restricted: DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises(duckdb.Error, match="disabled by configuration"):
        asked(restricted, reading(house, what, "items"), tmp_path)


@pytest.mark.parametrize("what", FOREIGN)
def test_no_table_is_named_and_nothing_but_readers_called(
    what: str, house: TinySource, restricted: DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=" refers to "):
        asked(restricted, reading(house, what, "items"), tmp_path)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_other_statement_is_an_adapter(
    statement: str, house: TinySource, restricted: DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=r"must hold exactly one SELECT|is not valid SQL"):
        asked(restricted, statement.format(home=house.home, root=house.root), tmp_path)


@pytest.mark.parametrize(
    "what", [OUTSIDE[0], OUTSIDE[12], OUTSIDE[17], FOREIGN[0], FOREIGN[7], FOREIGN[-3], FOREIGN[-1]]
)
def test_a_run_refuses_such_a_select_and_nothing_is_read_or_written(what: str, unseen: TinySource) -> None:
    told = refused(unseen, reading(unseen, what, "items"), "items")
    assert " refers to " in told if what in FOREIGN else "disabled by configuration" in told


def test_readers_their_words_generators_and_what_a_select_defines_are_fine(
    house: TinySource, restricted: DuckDBPyConnection, tmp_path: Path
) -> None:
    good = [
        "(with a as (select 1), b as (from a) from b join a on true)",
        "(with recursive a as (select 1 as n union all select n + 1 from a where n < 3) from a)",
        "(with recursive a(n) using key (n) as (select 1 as n union select n + 1 from recurring.a where n < 3) from a)",
        "lines(getvariable('input') || '/items.csv', 'utf-8')",
        "read_text(getvariable('input') || '/*.csv')",
        "(from range(3) union all from generate_series(1, 3))",
        "unnest([1, 2])",
        "(values (1), (2))",
        "(pivot (select 1 as n, 'x' as kind) on kind in ('x') using sum(n))",
        "(unpivot (select 1 as a, 2 as b) on a, b)",
        "glob(getvariable('input') || '/*.csv')",
    ]
    for what in good:
        assert asked(restricted, reading(house, what, "items"), tmp_path)


def test_the_connection_of_adapters_writes_and_opens_nothing_outside_even_without_the_check(tmp_path: Path) -> None:
    for folder in ("in", "home"):
        (tmp_path / folder).mkdir()
    with connect(tmp_path / "home" / "warehouse.duckdb") as connection:
        restrict(connection, tmp_path / "in")
        for statement in (
            f"copy (select 1) to '{tmp_path}/stolen.csv'",
            f"copy (select 1) to '{tmp_path}/home/stolen.csv'",
            f"attach '{tmp_path}/other.duckdb'",
            "install httpfs",
            "load httpfs",
            "set allowed_directories = ['/']",
            "set enable_external_access = true",
            "set lock_configuration = false",
            "set temp_directory = '/'",
        ):
            with pytest.raises(Exception, match=r"disabled|locked|Permission|Cannot"):
                connection.execute(statement)
        connection.execute("create table kept as select 1; checkpoint")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["warehouse.duckdb"]


def test_a_spill_folder_of_ones_own_choice_does_not_open_its_neighbours_to_adapters(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    (tmp_path / "secret.csv").write_text(f"a\n{SECRET}\n")
    (tiny.home / "home.json").write_text(f'{{"temp_directory": "{tmp_path}", "memory_limit": "1GB"}}')
    tiny.adapt("interactions", reading(tiny, f"read_csv('{tmp_path}/secret.csv')", "interactions"))
    with pytest.raises(ContractError, match="disabled by configuration"):
        tiny.land(AS_OF)
    assert stat.S_IMODE((tmp_path / "almanac-spill").stat().st_mode) == 0o700


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.file),)


@pytest.fixture
def bombs(tmp_path: Path) -> list[Path]:
    """A bare pickle and two files of torch.save, each of which would make `<tmp_path>/fired`."""
    fired, files = tmp_path / "fired", [tmp_path / f"{name}.pt" for name in ("bare", "saved", "old")]
    files[0].write_bytes(pickle.dumps(Bomb(fired)))
    torch.save({"graph": Bomb(fired)}, files[1])
    torch.save({"graph": Bomb(fired)}, files[2], _use_new_zipfile_serialization=False)
    pickle.loads(files[0].read_bytes())
    assert fired.exists(), "the bomb is no bomb"
    fired.unlink()
    return files


def test_a_stored_graph_that_carries_code_is_not_run(bombs: list[Path], tmp_path: Path) -> None:
    for bomb in bombs:
        with pytest.raises((pickle.UnpicklingError, RuntimeError)):
            read_graph(bomb)
    assert not (tmp_path / "fired").exists()


def test_a_model_that_carries_code_is_not_run(bombs: list[Path], published: Published, tmp_path: Path) -> None:
    home, work, source = tmp_path / "home", tmp_path / "work", load_source("shop")
    shutil.copytree(published.home, home, symlinks=True)
    store(home, source, published.as_of, work)
    judged = {
        "settings": ModelSettings().model_dump(mode="json"),
        "epochs": 1,
        "finishes": {},
        "options": {},
        "rows": [],
    }
    (work / "judged.json").write_text(json.dumps(judged))
    rankers, now = dict.fromkeys(("for_you", "discover"), "popularity"), datetime.now(UTC).replace(tzinfo=None)
    for bomb in bombs:
        shutil.copyfile(bomb, work / "model.pt")
        for load in (
            lambda: score(work, source, work / "model.pt", rankers, {}, 5, "cpu"),
            lambda: train(work, source, "cpu", work / "model.pt"),
            lambda: register(home, source, published.as_of, work, "run", now, "", {}),
        ):
            with pytest.raises((pickle.UnpicklingError, RuntimeError)):
                load()
        assert not is_whole(work / "model.pt")
    stored = next((home / "models").glob("*.pt"))
    shutil.copyfile(bombs[1], stored)
    with pytest.raises(RunError, match="as it was stored"):
        artifact(home, stored.stem)
    assert not (tmp_path / "fired").exists()


def test_the_code_loads_no_pickle_and_runs_no_text() -> None:
    for file in [path for folder in ("flows", "tasks", "models") for path in (ROOT / folder).glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} - {"UnpicklingError"}
                names |= {getattr(node, "module", None)} if names else set()
                assert not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}, where
            if not isinstance(node, ast.Call):
                continue
            called, options = (
                ast.unparse(node.func),
                {option.arg: ast.unparse(option.value) for option in node.keywords},
            )
            assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), where
            assert options.get("shell", "False") == "False" and options.get("allow_pickle", "False") == "False", where
            if called.endswith("torch.load"):
                assert options.get("weights_only") == "True", where
            if called.endswith("Environment"):
                assert options.get("autoescape") == "True", where

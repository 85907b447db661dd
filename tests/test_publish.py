"""What readers see: audited lists only, whole files behind a link, documented views, history in Parquet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasks.audit import audit
from tasks.errors import AuditError
from tasks.publish import PUBLISHED, publish
from tasks.serving import GRACE, KEPT_VERSIONS, VIEWS
from tasks.sources import load_source
from tasks.warehouse import SQL, open_warehouse
from tests.conftest import Published

TOP_K = 20  # of the published fixture
LIST_COLUMNS = ["as_of", "list", "user_id", "rank", "item_id", "score", "model", "reason", "reason_item_id"]
ONE_USER = "(select min(user_id) from scored.recommendations where reason != 'segment')"
DAMAGES = {
    "a user without lists": (
        f"delete from scored.recommendations where user_id = {ONE_USER}",
        "each known user has",
    ),
    "a list one row short": (
        f"delete from scored.recommendations where user_id = {ONE_USER} and list = 'for_you' and rank = {TOP_K}",
        "each known user has",
    ),
    "a list for nobody": (
        "insert into scored.recommendations by name select * replace ('nobody' as user_id) from scored.recommendations"
        f" where user_id = {ONE_USER}",
        "each known user has",
    ),
    "a gap in the ranks": (
        f"update scored.recommendations set rank = rank + 1 where user_id = {ONE_USER} and rank > 3",
        "ranks run from 1 without a gap",
    ),
    "a rank twice": (
        f"update scored.recommendations set rank = 1 where user_id = {ONE_USER} and rank = 2",
        "ranks run from 1 without a gap",
    ),
    "an item twice": (
        "update scored.recommendations as bad set item_id = good.item_id from scored.recommendations as good"
        " where bad.user_id = good.user_id and bad.list = good.list and bad.rank = 2 and good.rank = 1"
        f" and good.user_id = {ONE_USER}",
        "no item twice in a list",
    ),
    "a score that rises": (
        f"update scored.recommendations set score = 1e6 where user_id = {ONE_USER} and rank = 2",
        "scores are finite and do not rise",
    ),
    "a score that is no number": (
        f"update scored.recommendations set score = 'nan' where user_id = {ONE_USER} and rank = 1",
        "scores are finite and do not rise",
    ),
    "no score": (
        f"update scored.recommendations set score = null where user_id = {ONE_USER} and rank = 1",
        "scores are finite and do not rise",
    ),
    "an infinite score": (
        f"update scored.recommendations set score = 'inf' where user_id = {ONE_USER} and rank = 1",
        "scores are finite and do not rise",
    ),
    "a retired item": (
        "update scored.recommendations set item_id = (select min(item_id) from graph.item_nodes where retired_age_days >= 1)"
        f" where user_id = {ONE_USER} and rank = 1",
        "every item is live",
    ),
    "an item nobody knows": (
        f"update scored.recommendations set item_id = 'unheard of' where user_id = {ONE_USER} and rank = 1",
        "every item is live",
    ),
    "a seen item in discover": (
        "update scored.recommendations set item_id = (select min(item_id) from staging.interactions"
        f" where user_id = {ONE_USER} and item_id in (select item_id from graph.item_nodes where retired_age_days is null))"
        f" where user_id = {ONE_USER} and rank = 1 and list = 'discover'",
        "nothing a user already had in discover",
    ),
    "no reason": (
        f"update scored.recommendations set reason = null where user_id = {ONE_USER} and rank = 1",
        "item, model and reason are given",
    ),
    "no model": (
        f"update scored.recommendations set model = null where user_id = {ONE_USER} and rank = 1",
        "item, model and reason are given",
    ),
}


@pytest.fixture
def home(published: Published, tmp_path: Path) -> Path:
    """A copy of the published home, to publish into."""
    return copied(published, tmp_path / "home")


@pytest.fixture(scope="module")
def audited(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all damages; `damaged` mends it."""
    return copied(published, tmp_path_factory.mktemp("audited") / "home")


@pytest.fixture
def damaged(audited: Path) -> Iterator[Path]:
    execute(audited, "create or replace table scored.sound as from scored.recommendations")
    yield audited
    execute(audited, "create or replace table scored.recommendations as from scored.sound")


def copied(published: Published, home: Path) -> Path:
    shutil.copytree(published.home, home, symlinks=True)
    return home


def execute(home: Path, query: str) -> list[tuple]:
    with open_warehouse(home) as warehouse:
        return warehouse.execute(query).fetchall()


def served(home: Path, query: str) -> pl.DataFrame:
    with duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True) as reader:
        return reader.sql(query).pl()


def publish_again(
    home: Path,
    published: Published,
    run_id: str = "again",
    *,
    as_of: date | None = None,
    history_days: int = 90,
) -> None:
    """Publishes what was scored once more, as if another run, or one for another date, had scored it."""
    day = as_of or published.as_of
    execute(home, f"insert into mart.runs by name select * replace ('{run_id}' as run_id) from mart.runs limit 1")
    for table in PUBLISHED:
        execute(
            home,
            f"update scored.{table} set run_id = '{run_id}', as_of = date '{day}' where as_of = date '{published.as_of}'",
        )
    publish(home, day, run_id, datetime(2026, 1, 1), history_days)


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_lists_are_refused_and_the_old_ones_stay_served(
    damage: str, damaged: Path, published: Published
) -> None:
    query, rule = DAMAGES[damage]
    link, versions = os.readlink(damaged / "serving/almanac.duckdb"), sorted((damaged / "serving").iterdir())
    execute(damaged, query)
    with pytest.raises(AuditError, match=f"{rule}.*still served"):
        audit(damaged, load_source("shop"), published.as_of, TOP_K, damage)
    assert (os.readlink(damaged / "serving/almanac.duckdb"), sorted((damaged / "serving").iterdir())) == (
        link,
        versions,
    )
    recorded = f"select rule from mart.quality where run_id = '{damage}' and not success and severity = 'critical'"
    assert any(found.startswith(rule) or rule in found for (found,) in execute(damaged, recorded))


def test_sound_lists_pass_every_check(damaged: Path, published: Published) -> None:
    results = audit(damaged, load_source("shop"), published.as_of, TOP_K, "sound")
    assert all(result["success"] for result in results)
    assert sum(": " not in result["rule"] for result in results) == 13  # without the limits of the gate


def test_lists_unlike_the_previous_ones_are_a_warning(damaged: Path, published: Published) -> None:
    execute(damaged, "update mart.recommendations set item_id = 'unheard of'")
    results = audit(damaged, load_source("shop"), published.as_of, TOP_K, "unlike")
    assert [(result["severity"], result["rule"]) for result in results if not result["success"]] == [
        ("warning", "at least a tenth of the rows was in the previous lists")
    ]


def test_views_have_the_documented_columns_each_with_a_comment(published: Published) -> None:
    found = served(
        published.home,
        "select view_name, views.comment as view_comment, column_name, columns.comment from duckdb_views() as views"
        " join duckdb_columns() as columns on view_name = table_name and views.database_name = columns.database_name"
        " where not views.internal order by view_name, column_index",
    )
    assert set(found["view_name"]) == set(VIEWS)
    for view in ("current_recommendations", "recommendations_history"):
        assert found.filter(pl.col("view_name") == view)["column_name"].to_list() == LIST_COLUMNS
        dates = served(published.home, f"select typeof(as_of) as type from {view} limit 1")
        assert dates["type"].to_list() == ["DATE"]
    assert found["view_comment"].str.len_chars().min() > 20  # pyright: ignore
    documented = tomllib.loads((SQL / "serving/comments.toml").read_text())
    assert all(documented[row["column_name"]] == row["comment"] for row in found.iter_rows(named=True))


def test_current_lists_are_the_newest_and_history_holds_both_dates(published: Published) -> None:
    dates = [published.as_of - timedelta(days=7), published.as_of]
    days = "select distinct as_of from {} order by as_of"
    assert served(published.home, days.format("current_recommendations"))["as_of"].to_list() == dates[1:]
    assert served(published.home, days.format("recommendations_history"))["as_of"].to_list() == dates
    assert served(published.home, days.format("latest_runs"))["as_of"].to_list() == dates
    assert served(published.home, "select distinct as_of from similar_items")["as_of"].to_list() == dates[1:]


def test_no_item_is_similar_to_itself(published: Published) -> None:
    similar = served(published.home, "from similar_items")
    assert len(similar)
    assert not len(similar.filter(pl.col("item_id") == pl.col("similar_item_id")))
    ranks = similar.group_by("item_id").agg(pl.col("rank").max().alias("last"), pl.len(), pl.col("rank").n_unique())
    assert (ranks["last"] == ranks["len"]).all() and (ranks["rank"] == ranks["len"]).all()
    assert not similar.select("item_id", "similar_item_id").is_duplicated().any()


def test_older_clients_can_read_the_file(published: Published) -> None:
    file = (published.home / "serving/almanac.duckdb").resolve()
    with duckdb.connect() as reader:
        reader.execute(f"attach '{file}' as served (read_only)")
        tags = reader.execute("select tags from duckdb_databases() where database_name = 'served'").fetchall()[0][0]
    major, minor, *_ = tags["storage_version"].removeprefix("v").rstrip("+").split(".")
    assert (int(major), int(minor)) <= (1, 4)
    assert not file.with_name(f"{file.name}.wal").exists()


READER = """
import sys, duckdb
def runs(reader):
    print(reader.sql("select max(run_id), count(*) from latest_runs, current_recommendations group by all").fetchall()[0][1],
          reader.sql("select run_id from latest_runs limit 1").fetchall()[0][0], flush=True)
old = duckdb.connect(sys.argv[1], read_only=True)
runs(old)
sys.stdin.readline()
runs(old)
"""


def test_an_open_reader_keeps_its_version_and_a_new_one_sees_the_new(home: Path, published: Published) -> None:
    command = [sys.executable, "-c", READER, str(home / "serving/almanac.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout and reader.stdin
        before = reader.stdout.readline()
        assert published.summary["run_id"] in before
        publish_again(home, published)
        reader.stdin.write("\n")
        reader.stdin.close()
        assert reader.stdout.readline() == before
    new = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
    assert new.stdout.splitlines()[0].split()[1] == "again"


def test_publishing_a_date_again_replaces_it(home: Path, published: Published) -> None:
    query = "select * exclude (run_id) from recommendations order by all"
    before = served(home, query)
    publish_again(home, published)
    assert_frame_equal(served(home, query), before)
    assert execute(
        home, f"select distinct run_id from mart.recommendations where as_of = date '{published.as_of}'"
    ) == [("again",)]


@pytest.mark.parametrize("days_back", [0, 7])
def test_parquet_equals_the_table(days_back: int, published: Published) -> None:
    as_of = published.as_of - timedelta(days=days_back)
    files = list((published.home / f"serving/recommendations/as_of={as_of}").iterdir())
    assert [file.name for file in files] == ["recommendations.parquet"]
    with open_warehouse(published.home) as warehouse:
        table = warehouse.sql(
            f"select {', '.join(LIST_COLUMNS)}, run_id from mart.recommendations where as_of = date '{as_of}'"
            " order by list, user_id, rank"
        ).pl()
    assert_frame_equal(pl.read_parquet(files[0], hive_partitioning=False), table)


def test_the_serving_file_keeps_the_last_days_only(home: Path, published: Published) -> None:
    publish_again(home, published, history_days=7)
    assert served(home, "select distinct as_of from recommendations_history")["as_of"].to_list() == [published.as_of]
    assert execute(home, "select count(distinct as_of) from mart.recommendations") == [(2,)]


def test_a_date_older_than_the_served_history_can_be_backfilled(home: Path, published: Published) -> None:
    old = published.as_of - timedelta(days=100)
    served_before = served(home, "from current_recommendations order by all")
    publish_again(home, published, "old", as_of=old)
    assert_frame_equal(served(home, "from current_recommendations order by all"), served_before)
    assert (home / f"serving/recommendations/as_of={old}/recommendations.parquet").is_file()
    assert execute(home, f"select count(*) > 0 from mart.recommendations where as_of = date '{old}'") == [(True,)]


def test_pruning_keeps_the_served_file_and_young_ones(home: Path, published: Published) -> None:
    serving = home / "serving"
    today = time.time()

    def version(name: str, age: timedelta) -> Path:
        file = serving / f"almanac-{name}.duckdb"
        file.write_bytes(b"")
        moment = today - age.total_seconds()
        os.utime(file, (moment, moment))
        return file

    young = [version(f"young-{number}", timedelta(seconds=number)) for number in range(KEPT_VERSIONS + 3)]
    old = [version(f"old-{number}", GRACE * (2 + number)) for number in range(3)]
    publish_again(home, published)
    left = set(serving.glob("almanac-*.duckdb"))
    assert {*young, (serving / "almanac.duckdb").resolve()} <= left
    assert not {*old} & left


def test_old_versions_are_kept_up_to_the_number_for_rollback(home: Path, published: Published) -> None:
    publish_again(home, published)
    assert len(list((home / "serving").glob("almanac-*.duckdb"))) == 3

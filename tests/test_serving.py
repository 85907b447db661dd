"""The serving file by itself: views whose answers are known by construction, its order, and which versions are kept."""

from __future__ import annotations

import os
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from benchmarks.marked_lists import FIRST_DATE, MarkedHome, at
from tasks.errors import AuditError
from tasks.publish import repair
from tasks.serving import BY_DATE, TABLES, VIEWS, is_readable, prune, swap
from tasks.warehouse import connect, open_warehouse

USERS, TOP_K = 20, 5
DAY = timedelta(days=1)


@pytest.fixture
def marked(tmp_path: Path) -> MarkedHome:
    return MarkedHome(tmp_path / "home", users=USERS, items=30, top_k=TOP_K)


def served(marked: MarkedHome, query: str) -> pl.DataFrame:
    with duckdb.connect(str(marked.served), read_only=True) as reader:
        return reader.sql(query).pl()


def execute(marked: MarkedHome, *statements: str) -> None:
    with open_warehouse(marked.home) as warehouse:
        for statement in statements:
            warehouse.execute(statement)


def test_changes_name_what_entered_left_and_moved(marked: MarkedHome) -> None:
    for version in range(2):
        marked.publish(version, FIRST_DATE + version * DAY)
    user = "list = 'for_you' and user_id = 'user 00001'"  # items 5 to 9 the day before, 6 to 10 now
    changes = served(marked, f"from recommendation_changes where {user} order by coalesce(rank, 0)")
    assert changes.select("item_id", "change", "previous_rank", "rank").rows() == [
        ("item 5", "left", 1, None),
        ("item 6", "moved", 2, 1),
        ("item 7", "moved", 3, 2),
        ("item 8", "moved", 4, 3),
        ("item 9", "moved", 5, 4),
        ("item 10", "entered", None, 5),
    ]
    assert set(changes.select("as_of", "previous_as_of").rows()) == {(FIRST_DATE + DAY, FIRST_DATE)}
    assert served(marked, "select count(*) from recommendation_changes").item() == 2 * USERS * (TOP_K + 1)


def test_an_item_that_keeps_its_rank_has_not_changed(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    marked.publish(30, FIRST_DATE + DAY)  # 30 items further is the same item
    assert served(marked, "from recommendation_changes").is_empty()


def test_at_the_first_date_everything_has_entered(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    changes = served(marked, "select distinct change, previous_as_of, previous_rank from recommendation_changes")
    assert changes.rows() == [("entered", None, None)]


def test_reach_counts_the_lists_that_hold_an_item(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    # Lists of 5 start at items 0, 5, … 25 and around again: users 0, 6, 12 and 18 start at item 0, users 2, 8 and 14 at 10.
    reach = served(
        marked, "from item_reach where list = 'for_you' and item_id in ('item 0', 'item 12') order by item_id"
    )
    assert reach.drop("as_of", "list").rows() == [("item 0", 4, 4 / 20, 1.0), ("item 12", 3, 3 / 20, 3.0)]
    total = "select list, sum(users)::bigint as users from item_reach group by list order by list"
    assert served(marked, total).rows() == [("discover", USERS * TOP_K), ("for_you", USERS * TOP_K)]


def test_quality_shows_holdouts_of_every_ranker_and_what_the_published_one_proved(marked: MarkedHome) -> None:
    marked.publish(3, FIRST_DATE)
    realised = (
        f"select date '{FIRST_DATE}' as as_of, 'for_you' as list, 5 as k, unnest(['ndcg', 'precision']) as metric, 0.25 as"
        f" value, 7::bigint as users, timestamp '{at(9)}' as measured_at, 'run0003' as run_id"
    )
    execute(marked, f"create table mart.realised as {realised}")
    marked.publish(4, FIRST_DATE + DAY)
    rows = (
        "select ranker, metric, holdout_value, holdout_users, is_published, realised_value, realised_users, realised_at"
    )
    rows += f" from quality_daily where as_of = date '{FIRST_DATE}' and list = 'for_you' order by metric, ranker"
    assert served(marked, rows).rows() == [
        ("almanac", "ndcg", 3.0, 2 * USERS, True, 0.25, 7, at(9)),
        ("popularity", "ndcg", 3.0, 2 * USERS, False, None, None, None),
        ("almanac", "precision", None, None, True, 0.25, 7, at(9)),
        ("almanac", "recall", 3.0, 2 * USERS, True, None, None, None),
        ("popularity", "recall", 3.0, 2 * USERS, False, None, None, None),
    ]


def test_lists_of_many_users_are_counted_whole(tmp_path: Path) -> None:
    marked = MarkedHome(tmp_path / "home", users=4000, items=50, top_k=20)  # more rows than DuckDB keeps in one group
    marked.publish(0, FIRST_DATE)
    assert served(marked, "select sum(users)::bigint, sum(users_share) from item_reach").row(0) == (160_000, 40.0)


def test_what_another_run_of_the_date_proved_is_not_shown(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    realised = (
        f"select date '{FIRST_DATE}' as as_of, 'for_you' as list, 5 as k, 'ndcg' as metric, 0.25 as value, 7 as users"
    )
    execute(marked, f"create table mart.realised as {realised}, now()::timestamp as measured_at, 'run0000' as run_id")
    marked.publish(1, FIRST_DATE)
    assert served(marked, "from quality_daily where realised_value is not null").is_empty()


def test_the_run_log_has_every_run_and_says_which_is_served(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    marked.publish(1, FIRST_DATE)
    assert served(marked, "select status from run_log")["status"].to_list() == ["published", "replaced"]
    run = f"select 'refused' as status, date '{FIRST_DATE + DAY}' as as_of, 'run0002' as run_id, 'no rows' as message"
    timed = f"timestamp '{at(2)}' as started_at, map(['land', 'load'], [0.1, 0.2]) as seconds"
    execute(marked, f"insert into mart.runs by name {run}, {timed}")
    execute(marked, f"update mart.runs set stale_since = timestamp '{at(5)}' where run_id = 'run0001'")
    execute(marked, f"update mart.runs set withdrawn_at = timestamp '{at(6)}' where run_id = 'run0000'")
    marked.publish(3, FIRST_DATE + DAY)
    columns = "run_id, status, is_served, seconds, user_count, stale_since, withdrawn_at, message"
    assert served(marked, f"select {columns} from run_log").rows() == [
        ("run0003", "published", True, None, USERS, None, None, None),
        ("run0002", "refused", False, 0.3, None, None, None, "no rows"),
        ("run0001", "published", True, None, USERS, at(5), None, None),
        ("run0000", "replaced", False, None, USERS, None, at(6), None),
    ]


def test_dates_published_in_any_order_are_kept_in_order_of_date(marked: MarkedHome) -> None:
    for version, days in enumerate((0, 5, 3, 5, 0)):
        marked.publish(version, FIRST_DATE + days * DAY)
    for table in BY_DATE:
        dates = served(marked, f"select as_of from {table} order by rowid")["as_of"]
        assert dates.is_sorted() and dates.n_unique() == 3
    lists = served(marked, "select distinct as_of, run_id from recommendations order by as_of")["run_id"].to_list()
    assert lists == ["run0004", "run0002", "run0003"]


def test_all_tables_hold_the_kept_dates_only(marked: MarkedHome) -> None:
    for version in range(3):
        marked.publish(version, FIRST_DATE + version * DAY, history_days=2)
    for table in set(TABLES) - {"run_history"}:
        dates = served(marked, f"select distinct as_of from {table} order by as_of")["as_of"].to_list()
        assert dates == [FIRST_DATE + DAY, FIRST_DATE + 2 * DAY], table
    assert len(served(marked, "from run_log")) == 3


def contents(marked: MarkedHome) -> dict[str, list[tuple]]:
    """Rows of every table and view that is there."""
    names = served(marked, "select table_name from information_schema.tables order by 1")["table_name"]
    return {name: served(marked, f"from {name} order by all").rows() for name in names}


def rebuilt(marked: MarkedHome) -> dict[str, list[tuple]]:
    """What the file holds when it is made from nothing."""
    for file in (marked.home / "serving").glob("almanac-*.duckdb"):
        file.unlink()
    assert repair(marked.home, 90)
    return contents(marked)


def in_the_served_file(marked: MarkedHome, statement: str) -> None:
    with connect(marked.served.resolve()) as file:
        file.execute(statement)
        file.execute("checkpoint")


def test_a_version_built_on_the_one_before_is_the_one_built_from_nothing(marked: MarkedHome) -> None:
    for version, days in enumerate((3, 4, 5, 4, 9, 1)):
        marked.publish(version, FIRST_DATE + days * DAY)
    found = contents(marked)
    assert len({row[0] for row in found["recommendations"]}) == 5
    assert found == rebuilt(marked)


def test_dates_that_did_not_change_are_copied_and_those_from_the_first_change_on_written_anew(
    marked: MarkedHome,
) -> None:
    for version in range(3):
        marked.publish(version, FIRST_DATE + version * DAY)
    # the one table that is not compared with the warehouse
    in_the_served_file(marked, "update reach set mean_rank = -1")
    marked.publish(3, FIRST_DATE + DAY)
    marked.publish(4, FIRST_DATE + 3 * DAY)
    query = "select distinct as_of from reach where mean_rank = -1"
    assert served(marked, query)["as_of"].to_list() == [FIRST_DATE]


@pytest.mark.parametrize(
    "damage",
    [
        "alter table recommendations drop column reason",
        "alter table reach alter column users set data type varchar",
        "drop table reach",
        "delete from recommendations where rank = 1",
        "update recommendations set run_id = 'other'",
        "update item_recommendations set score = 0",
        "create table of_another_release (user_id varchar)",
        "create view of_another_release as from recommendations",
    ],
)
def test_a_version_unlike_what_is_published_is_not_built_on(damage: str, marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    for view in VIEWS:
        in_the_served_file(marked, f"drop view {view}")
    in_the_served_file(marked, damage)
    marked.publish(1, FIRST_DATE + DAY)
    assert contents(marked) == rebuilt(marked)


@pytest.mark.parametrize("left", [0, 100, 4096 * 3, -600_000, -5000, -1])
def test_a_version_that_is_cut_off_is_not_built_on(left: int, marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    size = marked.served.stat().st_size
    os.truncate(marked.served.resolve(), left if left >= 0 else size + left)
    assert marked.served.stat().st_size < size
    marked.publish(1, FIRST_DATE + DAY)
    assert contents(marked) == rebuilt(marked)


def test_a_file_that_broke_off_half_way_is_begun_anew_by_a_retry(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    with open_warehouse(marked.home) as warehouse:  # open since before the first try
        warehouse.execute(f"attach '{marked.home / 'serving' / 'next.duckdb'}' as serving")
        warehouse.execute("create table serving.recommendations (half varchar)")
        marked.publish(1, FIRST_DATE + DAY)
    assert contents(marked) == rebuilt(marked)


def test_a_file_that_forgets_old_dates_does_not_grow(tmp_path: Path) -> None:
    marked, sizes = MarkedHome(tmp_path / "home", users=20_000, items=30, top_k=TOP_K), []
    for version in range(9):
        marked.publish(version, FIRST_DATE + version * DAY, history_days=2)
        sizes.append(marked.served.stat().st_size)
    assert max(sizes[4:]) < 1.6 * sizes[1]


def test_lists_that_are_missing_are_not_served(marked: MarkedHome) -> None:
    marked.publish(0, FIRST_DATE)
    before = marked.served
    marked.score(1, FIRST_DATE + DAY)
    execute(marked, "delete from scored.recommendations")
    from tasks.publish import publish

    with pytest.raises(AuditError, match="shows no lists for 2024-01-02"):
        publish(marked.home, FIRST_DATE + DAY, "run0001", at(1), 90)
    assert marked.served == before


def version(serving: Path, name: str, age: timedelta) -> Path:
    file = serving / f"almanac-{name}.duckdb"
    file.write_bytes(b"")
    moment = time.time() - age.total_seconds()
    os.utime(file, (moment, moment))
    return file


def test_pruning_keeps_the_number_the_served_one_and_those_in_their_grace(tmp_path: Path) -> None:
    files = [version(tmp_path, f"{days}", days * DAY) for days in (1, 2, 6, 10, 14)]
    (tmp_path / "almanac.duckdb").symlink_to(files[4].name)
    assert prune(tmp_path, keep=9, grace=DAY) == []
    assert prune(tmp_path, keep=1, grace=5 * DAY) == files[2:4]
    assert prune(tmp_path, keep=1, grace=DAY) == files[1:2]
    assert prune(tmp_path, keep=0, grace=0 * DAY) == files[:1]
    assert (tmp_path / "almanac.duckdb").exists()


def test_a_version_stays_as_long_as_it_was_served_and_ten_minutes_at_least(tmp_path: Path) -> None:
    minutes = [1, 9, 11, 12, 40, 71, 73]  # since each was no longer served; 40 − 71: half an hour of service
    files = [version(tmp_path, f"{ago}", timedelta(minutes=ago)) for ago in minutes]
    (tmp_path / "almanac.duckdb").symlink_to(files[0].name)
    assert prune(tmp_path, keep=0, grace=DAY) == [files[2], files[4], files[5]]  # 12 had served for 28 minutes
    assert files[6].exists()  # nobody knows since when it was served


def test_grace_begins_when_a_version_is_no_longer_served(tmp_path: Path) -> None:
    old, new = version(tmp_path, "old", 9 * DAY), version(tmp_path, "new", 8 * DAY)
    swap(new)
    swap(old)  # as a rollback does
    swap(new)
    assert prune(tmp_path, keep=0, grace=DAY) == []
    assert prune(tmp_path, keep=0, grace=0 * DAY) == [old]


def test_a_version_is_served_again_only_when_whole_and_with_all_views_of_today(marked: MarkedHome) -> None:
    file = marked.publish(0, FIRST_DATE)
    assert is_readable(file)
    with duckdb.connect(str(file)) as writer:
        writer.execute("drop view run_log")
    assert not is_readable(file)
    file.write_bytes(file.read_bytes()[:5000])
    assert not is_readable(file)


def test_no_view_is_empty_and_the_newest_run_comes_first(marked: MarkedHome) -> None:
    for number in range(2):
        marked.publish(number, FIRST_DATE + number * DAY)
    assert served(marked, "select as_of from latest_runs")["as_of"].to_list() == [date(2024, 1, 2), date(2024, 1, 1)]
    assert all(len(served(marked, f"from {view}")) for view in VIEWS)

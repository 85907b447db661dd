"""Backfill: many dates as daily runs would have published them; stale dates repaired; publications withdrawn for good."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from datetime import date, datetime, timedelta
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tasks.errors import UsageError
from tasks.home import SCHEMA_VERSION
from tasks.processes import side_by_side, stop
from tasks.registry import list_models, plan_training, promote
from tasks.status import read_status
from tasks.warehouse import connect, open_warehouse, read_home
from tests.conftest import TINY_SHOP, publish
from tests.test_daily import ALMANAC, command, environment, rows
from tests.world import SHOP, end_date

SMALL = {"dimension": 16, "epochs": 2, "snapshot_count": 10}
LAST = end_date(**(SHOP | TINY_SHOP))
DATES = [LAST - timedelta(days=back) for back in (2, 1, 0)]


def backfilled(files: Path, home: Path, **options: Any) -> dict[str, Any]:
    from flows.backfill import backfill
    from flows.configuration import BackfillConfig

    given = {"first": DATES[0], "last": DATES[-1], "model": SMALL, "jobs": 2} | options
    return backfill(BackfillConfig(source="shop", input=files, home=home, **given))  # pyright: ignore


def published_lists(home: Path) -> pl.DataFrame:
    query = (
        "select * exclude (run_id) from mart.recommendations semi join mart.publications using (as_of, run_id)"
        " order by as_of, list, user_id, rank"
    )
    return rows(home, query)


def current_dates(home: Path) -> list[date]:
    with duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True) as reader:
        return [
            day for (day,) in reader.sql("select distinct as_of from recommendations_history order by 1").fetchall()
        ]


@pytest.fixture(scope="module")
def day_by_day(prefect: None, shop_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of one daily run for each date; treat as read-only."""
    home = tmp_path_factory.mktemp("daily") / "home"
    for as_of in DATES:
        publish(shop_files, home, as_of, model=SMALL)
    return home


@pytest.fixture(scope="module")
def at_once(prefect: None, shop_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home backfilled with the same dates, two side by side; treat as read-only."""
    home = tmp_path_factory.mktemp("backfill") / "home"
    done = backfilled(shop_files, home)
    assert (done["published"], done["left"], done["held"]) == (DATES, [], {})
    return home


@pytest.fixture
def home(at_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(at_once, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def test_a_backfill_publishes_what_daily_runs_publish_row_for_row(day_by_day: Path, at_once: Path) -> None:
    assert_frame_equal(published_lists(at_once), published_lists(day_by_day), check_exact=True)
    gate = "select as_of, list, ranker, blocked_by, difference, why from mart.gate order by all"
    assert_frame_equal(rows(at_once, gate), rows(day_by_day, gate), check_exact=True)
    assert current_dates(at_once) == current_dates(day_by_day) == DATES
    snapshots = "select as_of, source_snapshot from mart.runs where status = 'published' order by as_of"
    assert rows(at_once, snapshots).equals(rows(day_by_day, snapshots))


def test_one_process_and_two_publish_the_same(shop_files: Path, at_once: Path, tmp_path: Path) -> None:
    backfilled(shop_files, tmp_path / "home", jobs=1, last=DATES[1])
    expected = published_lists(at_once).filter(pl.col("as_of") <= DATES[1])
    assert_frame_equal(published_lists(tmp_path / "home"), expected, check_exact=True)


def test_published_dates_are_left_alone_unless_forced(shop_files: Path, home: Path) -> None:
    runs = "select run_id from mart.publications order by as_of"
    before = rows(home, runs)
    done = backfilled(shop_files, home)
    assert (done["published"], done["left"]) == ([], DATES)
    assert rows(home, runs).equals(before)
    lists = published_lists(home)
    forced = backfilled(shop_files, home, first=DATES[2], last=DATES[2], force=True)
    assert forced["published"] == [DATES[2]]
    assert (rows(home, runs)["run_id"] != before["run_id"]).to_list() == [False, False, True]
    assert_frame_equal(published_lists(home), lists, check_exact=True)


def test_weekly_training_is_the_same_at_once_and_day_by_day(shop_files: Path, tmp_path: Path) -> None:
    for as_of in DATES[:2]:
        publish(shop_files, tmp_path / "daily", as_of, model=SMALL, retrain="weekly")
    backfilled(shop_files, tmp_path / "once", retrain="weekly", last=DATES[1])
    assert_frame_equal(published_lists(tmp_path / "once"), published_lists(tmp_path / "daily"), check_exact=True)
    versions = rows(tmp_path / "once", "select distinct model_version from mart.runs where status = 'published'")
    assert len(versions) == 1
    assert (
        rows(tmp_path / "once", f"select count(*) as n from mart.gate where why like '%as judged on {DATES[0]}'")["n"][
            0
        ]
        == 2
    )


def test_training_is_planned_by_the_age_of_the_newest_usable_model(home: Path) -> None:
    versions = {str(row["trained_as_of"]): row["model_version"] for row in list_models(home)}
    later = [LAST + timedelta(days=ahead) for ahead in (1, 6, 7, 8, 14)]
    newest = versions[str(LAST)]
    assert plan_training(home, later, "never") == dict.fromkeys(later, newest)
    weekly = plan_training(home, later, "weekly")
    assert list(weekly.values()) == [newest, newest, later[2], later[2], later[4]]
    assert plan_training(home, later, "daily") == {as_of: as_of for as_of in later}
    promoted = versions[str(DATES[1])]
    assert promote(home, promoted, datetime(2026, 1, 1)) == LAST
    assert plan_training(home, later[:1], "never") == {later[0]: promoted}
    assert plan_training(home, [DATES[2]], "never") == {DATES[2]: promoted}, "its own model: the newest by then"
    with pytest.raises(UsageError, match="no model on record"):
        plan_training(home, [DATES[0] - timedelta(days=1)], "never")


def test_a_correction_marks_the_dates_after_it_and_stale_repairs_just_these(
    shop_files: Path, home: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    shutil.copytree(shop_files, files)
    (home / "home.json").unlink()  # it names the files it was made from
    corrected = DATES[1] - timedelta(days=1)  # events of this day are seen by the second date and those after it
    with connect() as writer:
        events = f"'{files}/interactions.parquet'"
        writer.execute(
            f"copy (select * from {events} where cast(occurred_at as date) != date '{corrected}' or hash(event_id) % 2 = 0)"
            f" to '{files}/new.parquet'"
        )
    (files / "new.parquet").replace(files / "interactions.parquet")
    before = rows(home, "select as_of, run_id from mart.publications order by as_of")
    untouched = backfilled(files, home)
    assert untouched["published"] == [] and untouched["found"]["stale"] == DATES[1:]
    assert (
        rows(home, "select as_of from mart.runs where stale_since is not null order by 1")["as_of"].to_list()
        == DATES[1:]
    )
    done = backfilled(files, home, first=None, last=None, stale=True)
    assert done["published"] == DATES[1:]
    after = rows(home, "select as_of, run_id from mart.publications order by as_of")
    assert (before["run_id"] == after["run_id"]).to_list() == [True, False, False]
    assert not len(
        rows(home, "select 1 from mart.publications join mart.runs using (run_id) where stale_since is not null")
    )
    assert backfilled(files, home, first=None, last=None, stale=True)["published"] == []
    backfilled(
        files, tmp_path / "fresh", first=DATES[0], last=DATES[2]
    )  # the gate looks at what the date before published
    on = pl.col("as_of").is_in(DATES[1:3])
    assert_frame_equal(
        published_lists(home).filter(on), published_lists(tmp_path / "fresh").filter(on), check_exact=True
    )


def test_a_killed_backfill_goes_on_where_it_was(shop_files: Path, at_once: Path, tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    script = "from tests.test_backfill import *\nimport sys\nbackfilled(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    (tmp_path / "script.py").write_text(f"if __name__ == '__main__':\n    {script.replace(chr(10), chr(10) + '    ')}")
    with log.open("w") as output:
        process = subprocess.Popen(
            [ALMANAC[0], str(tmp_path / "script.py"), str(shop_files), str(home)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment() | {"PYTHONPATH": str(Path(__file__).parents[1])},
            start_new_session=True,
        )
        while not (home / "serving/almanac.duckdb").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    seen = current_dates(home)
    assert seen == DATES[: len(seen)]
    done = backfilled(shop_files, home)
    assert done["left"] == DATES[: len(done["left"])] and done["published"] == DATES[len(done["left"]) :]
    assert done["left"]
    assert_frame_equal(published_lists(home), published_lists(at_once), check_exact=True)
    assert current_dates(home) == DATES
    assert not list((home / "work").iterdir())


def test_a_rollback_withdraws_for_good_and_keeps_versions_whole(shop_files: Path, home: Path) -> None:
    reader = duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True)
    begun = time.monotonic()
    result = command("rollback", "--to", DATES[1], "--home", home)
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - begun < 60  # the ten seconds of a real home are measured in benchmarks
    assert str(DATES[2]) in result.stdout
    assert current_dates(home) == DATES[:2]
    assert reader.sql("select max(as_of) from current_recommendations").fetchall() == [(LAST,)], (
        "an open reader goes on"
    )
    reader.close()
    parquet = sorted(folder.name for folder in (home / "serving/recommendations").iterdir())
    assert parquet == [f"as_of={as_of}" for as_of in DATES[:2]]
    demoted = {row["trained_as_of"] for row in list_models(home) if row["demoted_at"]}
    assert demoted == set(DATES[2:])
    assert backfilled(shop_files, home)["left"] == DATES, "withdrawn dates do not come back by themselves"
    publish(shop_files, home, LAST + timedelta(days=1), model=SMALL)
    assert current_dates(home) == [*DATES[:2], LAST + timedelta(days=1)]
    publish(shop_files, home, DATES[2], model=SMALL)  # asked for
    assert current_dates(home) == [*DATES[:3], LAST + timedelta(days=1)]
    assert (read_status(home) or {})["withdrawn"] == [str(as_of) for as_of in DATES[3:]]
    impossible = command("rollback", "--to", "1999-01-01", "--home", home)
    assert impossible.returncode == 2 and str(DATES[0]) in impossible.stderr


def test_a_run_that_was_killed_before_readers_were_told_is_shown_by_the_next(shop_files: Path, home: Path) -> None:
    link = home / "serving/almanac.duckdb"
    earlier = next(file for file in (home / "serving").glob(f"almanac-{DATES[0]}-*.duckdb"))
    link.unlink()
    link.symlink_to(earlier.name)
    shutil.rmtree(home / f"serving/recommendations/as_of={LAST}")
    assert current_dates(home) == DATES[:1]
    backfilled(shop_files, home)
    assert current_dates(home) == DATES
    assert (home / f"serving/recommendations/as_of={LAST}/recommendations.parquet").exists()


def test_a_home_of_an_earlier_schema_is_brought_up_to_date_and_a_newer_one_refused(
    shop_files: Path, home: Path
) -> None:
    lists = published_lists(home)
    with open_warehouse(home) as warehouse:
        warehouse.execute("drop view mart.publications")
        for column in ("published_at", "withdrawn_at", "stale_since", "known_at"):
            warehouse.execute(f"alter table mart.runs drop column {column}")
        for column in ("rankers", "options", "demoted_at", "promoted_as_of"):
            warehouse.execute(f"alter table mart.models drop column {column}")
    home_json = home / "home.json"
    text = home_json.read_text()
    assert read_home(home)["schema_version"] == SCHEMA_VERSION
    home_json.write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 1'))
    assert backfilled(shop_files, home)["left"] == DATES
    assert_frame_equal(published_lists(home), lists, check_exact=True)
    home_json.write_text(text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    newer = command("run", "--source", "shop", "--input", shop_files, "--as-of", LAST, "--home", home)
    assert newer.returncode == 2 and "newer Almanac" in newer.stderr


def test_processes_end_in_the_middle_of_their_work() -> None:
    pool = side_by_side(2)
    working = [pool.submit(time.sleep, 600) for _ in range(2)]
    while not all(future.running() for future in working) or len(active_children()) < 2:
        time.sleep(0.05)
    children = active_children()
    stop(pool)
    deadline = time.monotonic() + 20
    # not join: the pool's own thread may take the exit code at that moment
    while any(child.is_alive() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)

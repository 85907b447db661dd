"""The whole job through its flow and its command line: repeatable, blind to the future, safe to kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from polars.testing import assert_frame_equal

from tasks.warehouse import connect, exclusive, open_warehouse
from tests.conftest import Published, publish

PUBLISHED = "select * exclude (run_id) from mart.recommendations order by as_of, list, user_id, rank"
ALMANAC = [sys.executable, "-m", "flows.cli"]


def rows(home: Path, query: str = PUBLISHED) -> pl.DataFrame:
    with open_warehouse(home) as warehouse:
        return warehouse.sql(query).pl()


def environment(*, own_server: bool = False) -> dict[str, str]:
    """Of a command in a process of its own: with the server of the tests, or as on a machine without one."""
    from prefect.settings import PREFECT_API_URL

    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return bare if own_server else bare | {"PREFECT_API_URL": PREFECT_API_URL.value()}


def command(*arguments: object, own_server: bool = False) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [*ALMANAC, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(own_server=own_server),
        check=False,
    )


def run_arguments(files: Path, home: Path, as_of: date) -> list[object]:
    return ["run", "--source", "shop", "--input", files, "--as-of", as_of, "--home", home]


def with_future_rows(files: Path, folder: Path, as_of: date) -> Path:
    """A copy of the shop with good and broken rows dated on or after `as_of`, items launched then and undated facts of them."""
    shutil.copytree(files, folder)
    with connect() as writer:
        events = f"'{folder}/interactions.parquet'"
        writer.execute(
            f"copy (select * replace (case when i % 3 = 0 then null else item_id end as item_id,"
            f" case when i % 5 = 0 then 'nonsense' else 'i00001' end as event_type,"
            f" timestamp '{as_of}' + to_days(i % 30) as occurred_at, event_id || 'f' as event_id)"
            f" from (select *, row_number() over () as i from {events} limit 2000)"
            f") to '{folder}/interactions_future.parquet'"
        )
        items = f"'{folder}/items.parquet'"
        writer.execute(
            f"copy (select * replace ('i9' || item_id as item_id, date '{as_of}' as launch_date, 'unheard of' as category)"
            f" from {items} limit 50) to '{folder}/items_future.parquet'"
        )
        writer.execute(
            "copy (select item_id as subject, 'made_of' as relation, 'unheard of' as object, cast(null as date) as since"
            f" from '{folder}/items_future.parquet') to '{folder}/facts_future.parquet'"
        )
    return folder


def test_publishing_twice_gives_the_same_rows_bit_for_bit(published: Published, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    (home / "home.json").unlink()
    publish(published.files, home, published.as_of)
    assert_frame_equal(rows(home), rows(published.home), check_exact=True)
    similar = "select * exclude (run_id) from mart.item_recommendations order by all"
    assert_frame_equal(rows(home, similar), rows(published.home, similar), check_exact=True)
    counts = "select count(*), count(distinct (source_file, source_row)) from raw.interactions"
    assert rows(home, counts).equals(rows(published.home, counts))


def test_rows_dated_on_or_after_as_of_change_no_published_row(published: Published, tmp_path: Path) -> None:
    as_of = published.as_of - timedelta(days=7)
    files = with_future_rows(published.files, tmp_path / "files", as_of)
    home = tmp_path / "home"
    summary = publish(files, home, as_of)
    expected = rows(published.home).filter(pl.col("as_of") == as_of)
    assert_frame_equal(rows(home), expected, check_exact=True)
    deferred = {(table, file): count for table, file, fate, _, count in summary["accounting"] if fate == "deferred"}
    assert deferred["interactions", "interactions_future.parquet"] == 2000
    assert deferred["items", "items_future.parquet"] == 50


def test_three_dates_in_one_home_equal_three_dates_in_homes_of_their_own(published: Published, tmp_path: Path) -> None:
    """The first date is the shared home's own; its last followed without the one between."""
    between, last = published.as_of - timedelta(days=1), published.as_of
    shutil.copytree(published.earlier, tmp_path / "together", symlinks=True)
    for as_of in (between, last):
        publish(published.files, tmp_path / "together", as_of)
    publish(published.files, tmp_path / "alone", between)
    together = rows(tmp_path / "together")
    assert together["as_of"].unique().sort().to_list() == [published.as_of - timedelta(days=7), between, last]
    for as_of, home in ((between, tmp_path / "alone"), (last, published.home)):
        gate = f"select list, ranker from mart.gate where as_of = date '{as_of}' order by list"
        assert rows(tmp_path / "together", gate).equals(rows(home, gate)), "else the incumbent matters"
        on_date = pl.col("as_of") == as_of
        assert_frame_equal(together.filter(on_date), rows(home).filter(on_date), check_exact=True)


def test_a_date_run_after_a_later_one_is_what_it_was_in_order(published: Published, tmp_path: Path) -> None:
    """The warehouse then holds what came later: rows, models, lists and incumbents."""
    as_of = published.as_of - timedelta(days=7)
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    publish(published.files, home, as_of)
    assert_frame_equal(rows(home), rows(published.home), check_exact=True)
    served = duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True)
    assert served.sql("select distinct as_of from current_recommendations").fetchall() == [(published.as_of,)]


def test_every_known_user_has_both_lists_and_discover_holds_nothing_seen(published: Published) -> None:
    lists = rows(published.home).filter(pl.col("as_of") == published.as_of)
    users = rows(published.home, "select user_id from graph.user_nodes")["user_id"]
    live = rows(published.home, "select count(*) as n from graph.item_nodes where retired_age_days is null")["n"][0]
    per_list = lists.group_by("list", "user_id").len()
    assert set(per_list["user_id"]) == set(users)
    for_you = per_list.filter(pl.col("list") == "for_you")
    assert set(for_you["len"]) == {min(20, live)} and len(for_you) == len(users)
    seen = rows(
        published.home,
        "select distinct user_id, item_id from graph.interaction_edges join graph.user_nodes using (user_index)"
        " join graph.item_nodes using (item_index)",
    )
    discover = lists.filter(pl.col("list") == "discover")
    assert not len(discover.join(seen, on=["user_id", "item_id"], how="semi"))


def test_users_without_history_see_what_is_popular_in_their_segment_and_are_told_so(published: Published) -> None:
    lists = rows(published.home).filter(pl.col("as_of") == published.as_of)
    without = rows(
        published.home,
        "select user_id from graph.user_nodes where user_index not in (select user_index from graph.interaction_edges)",
    )
    assert len(without)
    is_without = pl.col("user_id").is_in(without["user_id"].implode())
    assert set(lists.filter(is_without)["reason"]) == {"segment"}
    assert set(lists.filter(is_without)["model"]) == {"segment_popularity"}
    assert "segment" not in set(lists.filter(~is_without)["reason"])


def test_reasons_name_items_of_the_history_or_facts_of_the_item(published: Published) -> None:
    history = rows(
        published.home,
        "select distinct user_id, item_id as reason_item_id from staging.interactions",
    )
    lists = rows(published.home).filter(pl.col("as_of") == published.as_of)
    named = lists.filter(pl.col("reason").is_in(["taste", "repeat"]) & pl.col("reason_item_id").is_not_null())
    assert len(named)
    assert len(named.join(history, on=["user_id", "reason_item_id"], how="semi")) == len(named)
    facts = lists.filter(pl.col("reason") == "fact")
    edges = rows(
        published.home,
        "select item_id, entity_id as reason_item_id from graph.knowledge_edges join graph.entity_nodes using (entity_index)"
        " join graph.item_nodes on source_kind = 'item' and source_index = item_index",
    )
    assert len(facts.join(edges, on=["item_id", "reason_item_id"], how="semi")) == len(facts)


def test_every_row_traces_to_a_run_a_model_version_and_a_snapshot(published: Published) -> None:
    traced = rows(
        published.home,
        "select lists.as_of, runs.status, runs.source_snapshot, models.artifact, models.artifact_hash from mart.recommendations"
        " as lists left join mart.runs as runs using (run_id) left join mart.models as models using (run_id)",
    )
    assert traced.null_count().sum_horizontal().item() == 0
    assert set(traced["status"]) == {"published"}
    assert all((published.home / artifact).is_file() for artifact in traced["artifact"].unique())


def test_the_command_line_tells_wrong_usage_from_refused_data(published: Published, tmp_path: Path) -> None:
    wrong = command(
        "run", "--source", "nowhere", "--input", tmp_path, "--as-of", "2022-01-01", "--home", tmp_path / "a"
    )
    assert wrong.returncode == 2 and "shipped" in wrong.stderr
    assert command("run", "--source", "shop").returncode == 2
    given = "backfill", "--source", "shop", "--input", published.files, "--home", tmp_path / "none"
    backwards = command(*given, "--from", "2022-02-02", "--to", "2022-02-01")
    assert backwards.returncode == 2 and "2022-02-02, is after the last, 2022-02-01" in backwards.stderr
    undated = command(*given)
    assert undated.returncode == 2 and "--from, --to" in undated.stderr
    assert command("show", "u000001", "--list", "nothing", "--home", published.home).returncode == 2
    assert command("status", "--home", tmp_path / "none").returncode == 2
    missing = command(*run_arguments(tmp_path / "no folder", tmp_path / "b", published.as_of))
    assert missing.returncode == 3 and "no folder" in missing.stderr
    for result in (wrong, missing):
        assert "Traceback" not in result.stderr + result.stdout
    shown = command("show", rows(published.home)["user_id"][0], "--list", "discover", "--home", published.home)
    assert shown.returncode == 0 and "discover of" in shown.stdout
    assert "published" in command("status", "--home", published.home).stdout


def test_a_home_serves_one_source_and_one_run_at_a_time(published: Published, tmp_path: Path) -> None:
    other = command(*run_arguments(tmp_path, published.home, published.as_of))
    assert other.returncode == 2 and "--home" in other.stderr
    with exclusive(published.home):
        second = command(*run_arguments(published.files, published.home, published.as_of))
    assert second.returncode == 2 and "another run" in second.stderr


def test_a_refused_delivery_changes_nothing_and_exits_3(published: Published, tmp_path: Path) -> None:
    home, files = tmp_path / "home", tmp_path / "files"
    shutil.copytree(published.files, files)
    shutil.copytree(published.earlier, home, symlinks=True)
    (home / "home.json").unlink()  # it names the files it was copied from
    before = (
        rows(home),
        rows(home, "select * from raw.deliveries order by all"),
        (home / "serving/almanac.duckdb").resolve(),
    )
    with connect() as writer:
        broken = files / "broken.parquet"
        writer.execute(
            f"copy (select * replace (case when i % 3 = 0 then null else item_id end as item_id) from"
            f" (select *, row_number() over () as i from '{files}/interactions.parquet')) to '{broken}'"
        )
    os.replace(broken, files / "interactions.parquet")
    result = command(*run_arguments(files, home, published.as_of - timedelta(days=6)))
    assert result.returncode == 3, result.stderr
    assert "RejectLimitError" in result.stderr and "max_reject_share" in result.stderr
    after = (
        rows(home),
        rows(home, "select * from raw.deliveries order by all"),
        (home / "serving/almanac.duckdb").resolve(),
    )
    assert_frame_equal(before[0], after[0])
    assert_frame_equal(before[1], after[1])
    assert before[2] == after[2]
    statuses = rows(home, "select status from mart.runs order by started_at")["status"].to_list()
    assert statuses == ["published", "refused"]


def test_a_step_that_breaks_exits_1_and_keeps_the_publication(published: Published, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(published.home, home, symlinks=True)
    served = (home / "serving/almanac.duckdb").resolve()
    with open_warehouse(home) as warehouse:
        warehouse.execute("drop table mart.quality; create view mart.quality as select 1 as in_the_way")
    result = command(*run_arguments(published.files, home, published.as_of), own_server=True)
    assert result.returncode == 1, result.stderr
    assert "--verbose" in result.stderr and "Traceback" not in result.stderr
    assert (home / "serving/almanac.duckdb").resolve() == served
    assert rows(home).equals(rows(published.home))


def killed_after(step: str, arguments: list[Any], log: Path) -> int:
    """Runs the command and kills it, with no chance to clean up, once the log names the step; returns its exit status."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [*ALMANAC, *map(str, arguments)], stdout=output, stderr=subprocess.STDOUT, env=environment()
        )
        while f" {step} " not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        return process.wait()


def test_killed_runs_are_made_good_by_the_next_and_readers_saw_the_old_lists(
    published: Published, tmp_path: Path
) -> None:
    """Killed while loading, then while judging, then while publishing: the step after the one that the log names."""
    home, served = tmp_path / "home", "from current_recommendations order by all"
    shutil.copytree(published.earlier, home, symlinks=True)
    reader = duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True)
    seen = reader.sql(served).pl()
    for finished in ("validate", "graph", "audit"):
        arguments = run_arguments(published.files, home, published.as_of)
        assert killed_after(finished, arguments, tmp_path / "log") == -signal.SIGKILL
        new_reader = duckdb.connect(str((home / "serving/almanac.duckdb").resolve()), read_only=True)
        assert_frame_equal(reader.sql(served).pl(), seen)
        assert new_reader.sql("select max(as_of) from current_recommendations").fetchall() in (
            [(published.as_of - timedelta(days=7),)],
            [(published.as_of,)],  # the last one may have come through
        )
        new_reader.close()
    publish(published.files, home, published.as_of)
    assert_frame_equal(reader.sql(served).pl(), seen)
    reader.close()
    assert_frame_equal(rows(home), rows(published.home), check_exact=True)
    deliveries = (
        "select table_name, source_file, delivery_date, row_count, content_hash, superseded_at from raw.deliveries"
    )
    assert_frame_equal(rows(home, f"{deliveries} order by all"), rows(published.home, f"{deliveries} order by all"))
    statuses = rows(home, "select status from mart.runs order by started_at")["status"].to_list()
    assert statuses[0] == statuses[-1] == "published"
    assert len(statuses) == 5 and set(statuses[1:3]) == {"killed"} and statuses[3] in ("killed", "replaced")


def test_a_warm_start_and_diverse_lists_are_opt_in_and_pass_the_audit(published: Published, tmp_path: Path) -> None:
    shutil.copytree(published.earlier, tmp_path / "home", symlinks=True)
    publish(published.files, tmp_path / "home", published.as_of, warm_start=True, diversity=0.5)
    newest = "from mart.recommendations where as_of = (select max(as_of) from mart.recommendations)"
    query = f"select list, user_id, rank, item_id {newest} order by all"
    usual, other = (rows(home, query) for home in (published.home, tmp_path / "home"))
    keys = ["list", "user_id", "rank"]
    assert_frame_equal(usual.select(keys), other.select(keys))
    assert (usual["item_id"] != other["item_id"]).any()
    start = "select trained_as_of, artifact from mart.models order by trained_as_of"
    assert len(rows(tmp_path / "home", start)) == 2


def test_ctrl_c_within_a_query_ends_a_step_instead_of_starting_it_again(prefect: None) -> None:
    from prefect.states import Failed

    from flows.steps import is_transient

    assert not is_transient(None, None, Failed(data=RuntimeError("Query interrupted")))  # what DuckDB makes of it
    assert is_transient(None, None, Failed(data=ConnectionError("gone for a moment")))

"""The cheapest of the faults of `make chaos`, and that its checks see what they are there to see."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.chaos import every_fault
from benchmarks.chaos_checks import after_repair, of_readers
from benchmarks.chaos_fault import Fault, suffer
from benchmarks.chaos_files import after_a_kill, at_rest, cut, emptied
from benchmarks.chaos_process import DidNotHappen
from benchmarks.chaos_scene import Scene, served, slice_scene
from benchmarks.chaos_stage import Stage
from tasks.publish import repair
from tasks.snapshots import is_whole
from tasks.warehouse import open_warehouse, read_home
from tests.test_daily import environment


@pytest.fixture(scope="module")
def scene(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The shop of the faults with its homes after none, one and two dates; treat as read-only."""
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = environment()["PREFECT_API_URL"]  # what runs are forked from keeps it
    try:
        yield slice_scene(tmp_path_factory.mktemp("chaos"), dates=2)
    finally:
        os.environ.pop("PREFECT_API_URL")
        os.environ |= {"PREFECT_API_URL": before} if before else {}


@pytest.fixture
def stage(scene: Scene, tmp_path: Path) -> Stage:
    """The home with both dates, as if a fault on the second had just been made good."""
    stage = Stage(scene, tmp_path, published=2, goal=2)
    return stage


def test_more_than_a_hundred_faults_have_names_of_their_own() -> None:
    keys = [fault.key for fault in every_fault()]
    assert len(keys) == len(set(keys)) > 110


def test_a_run_killed_after_training_is_made_good_though_what_it_left_is_torn(scene: Scene, tmp_path: Path) -> None:
    fault = Fault("damage", "model cut after a kill", partial(after_a_kill, "train", "model.pt", cut), published=1)
    outcome = suffer(fault, scene, tmp_path / "stage")
    assert outcome.is_good, outcome
    assert outcome.happened and "the last train" in outcome.happened


def test_a_run_makes_good_all_that_is_served_and_a_torn_home_json(scene: Scene, tmp_path: Path) -> None:
    def damage(stage: Stage) -> str:
        emptied(stage.home / "home.json")
        return at_rest("serving/*/*/*.parquet", cut, stage) + at_rest("serving/almanac-*", cut, stage)

    outcome = suffer(Fault("damage", "at rest", damage, published=1), scene, tmp_path / "stage")
    assert outcome.is_good, outcome


def test_a_fault_that_did_not_happen_is_not_counted_as_survived(scene: Scene, tmp_path: Path) -> None:
    def nothing(stage: Stage) -> str:
        raise DidNotHappen("the disk had room")

    outcome = suffer(Fault("damage", "none", nothing, published=1), scene, tmp_path / "stage")
    assert not outcome.is_good
    assert outcome.wrong == ["did not happen: the disk had room"]


def test_readers_are_shown_again_what_is_published_without_a_run(stage: Stage) -> None:
    at_rest("serving/almanac-*", cut, stage)
    at_rest("serving/*/*/*.parquet", emptied, stage)
    assert repair(stage.home, history_days=90)
    assert served(stage.home) == stage.scene.states[2]
    assert after_repair(stage) == []
    assert not repair(stage.home, history_days=90)


def test_an_undisturbed_home_passes_and_every_kind_of_damage_is_seen(stage: Stage) -> None:
    assert after_repair(stage) == []
    with open_warehouse(stage.home) as warehouse:
        warehouse.execute("update mart.recommendations set score = score + 1e-6 where rank = 1")
        warehouse.execute("delete from raw.interactions where source_row = 7")
        warehouse.execute("update mart.accounting set row_count = row_count + 1 where fate = 'unchanged'")
        warehouse.execute("update mart.runs set status = 'running' where run_id = (select min(run_id) from mart.runs)")
    (stage.serving / "next.duckdb").touch()
    (stage.home / "work" / "2021-01-01-0").mkdir(parents=True)
    (stage.home / "models" / "shop-0.pt").touch()
    wrong = "\n".join(after_repair(stage))
    for sign in (
        "recommendations differs from",
        "Parquet holds",
        "raw.interactions differs",
        "the accounting",
        "raw and",
    ):
        assert sign in wrong
    for sign in ("{'running'}", "0 runs of", "left in work", "left: serving/next.duckdb", "models on disk"):
        assert sign in wrong


def test_a_reader_who_saw_what_never_was_is_told(stage: Stage) -> None:
    stage.look()
    assert list(of_readers(stage)) == []
    stage.watched.append(stage.watched[0] | {"item_reach": (1, "2")})
    stage.failures.append("IOException: no such file")
    assert [line.split(":")[0] for line in of_readers(stage)] == [
        "a reader failed",
        "a reader saw a state that never was",
    ]


def test_what_is_torn_is_not_taken_for_whole(tmp_path: Path) -> None:
    for name, text in (("judged.json", "{"), ("model.pt", "PK"), ("home.json", "")):
        (tmp_path / name).write_text(text)
    assert not is_whole(tmp_path / "judged.json") and not is_whole(tmp_path / "model.pt")
    assert not is_whole(tmp_path / "nothing.json")
    assert read_home(tmp_path) == {}
    (tmp_path / "judged.json").write_text("{}")
    assert is_whole(tmp_path / "judged.json")


def test_a_killed_process_counts_as_killed_only_by_its_signal(scene: Scene, stage: Stage) -> None:
    running = stage.run(as_of=scene.dates[2])
    running.send(signal.SIGKILL)
    running.must_end_by(signal.SIGKILL)
    with pytest.raises(DidNotHappen, match="before signal 15"):
        running.send(signal.SIGTERM)

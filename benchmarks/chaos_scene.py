"""What the faults of `benchmarks.chaos` share: the job they disturb, and its undisturbed history as readers saw it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.chaos_process import Running, execute, fork, python
from tasks.shop import FIRST_DATE, write_shop
from tasks.warehouse import connect

SHOP: dict[str, Any] = {"users": 120, "items": 60, "days": 300}
DATES = [FIRST_DATE + timedelta(days=SHOP["days"] - back) for back in (3, 2, 1, 0)]
FULL_DATES = [date(2011, 8, 1), date(2011, 8, 2), date(2011, 8, 3)]
STEPS = (
    "land",
    "validate",
    "load",
    "stage",
    "validate",
    "graph",
    "judge",
    "train",
    "score",
    "audit",
    "publish",
    "health",
    "report",
)
VIEWS = {  # what readers see, without what every run has of its own: its id, its times, its code
    "current_recommendations": "*",
    "recommendations_history": "*",
    "recommendation_changes": "*",
    "item_reach": "*",
    "similar_items": "*",
    "quality_daily": "* exclude (realised_at)",
    "latest_runs": "* exclude (run_id, started_at, code_version)",
}
State = dict[str, tuple[int, str | None]]  # view → rows, order-free digest
NOTHING: State = {}


def digest(reader: duckdb.DuckDBPyConnection, relation: str, columns: str = "*") -> tuple[int, str | None]:
    """How many rows a relation has, and an order-free digest of them, bit for bit."""
    query = f"select count(*), cast(sum(hash(found)) as varchar) from (select {columns} from {relation}) as found"
    return reader.execute(query).fetchall()[0]


def served(home: Path) -> State:
    """What a reader of the home's serving file sees now, in all views; raises where they do not belong together."""
    link = home / "serving" / "almanac.duckdb"
    if not os.path.lexists(link):
        return NOTHING
    with connect(link.resolve(), read_only=True) as reader:
        seen = {view: digest(reader, view, columns) for view, columns in VIEWS.items()}
        apart = reader.execute(
            "select count(*) from (select run_id from run_log where is_served) full join latest_runs using (run_id)"
            " where latest_runs.as_of is null or run_id is null"
        ).fetchall()[0][0]
        assert not apart, "run_log and latest_runs differ"
        return seen


@dataclass
class Scene:
    """The files and homes that all faults share, to be treated as read-only; full: the whole job on real data."""

    folder: Path
    files: Path
    dates: list[date]
    full: bool = False
    homes: list[Path] = field(default_factory=list)  # after 0, 1, … published dates, undisturbed
    states: list[State] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)  # of a run, with the seconds of each
    made: dict[str, Any] = field(default_factory=dict)  # what faults of a kind have found out for each other

    def home(self, published: int, place: Path) -> Path:
        """A copy of an undisturbed home."""
        shutil.copytree(self.homes[published], place, symlinks=True)
        return place

    def start(self, files: Path, home: Path, dates: list[date], log: Path, *more: object, **how: Any) -> Running:
        """Starts the run of a date, or a backfill of its first to its last of several."""
        if not self.full:
            return fork([files, home, *dates[:1], *(dates[1:] and dates[-1:]), *more], log, **how)
        days = ["run", "--as-of", dates[0]] if len(dates) == 1 else ["backfill", "--from", dates[0], "--to", dates[-1]]
        source = ["--source", "online-retail-ii", "--input", files, "--home", home]
        return execute(python("flows.cli", *days, *source, *more), log)

    def play(self, dates: int) -> None:
        """Runs day by day what faults are compared with."""
        self.homes.append(self.folder / "undisturbed-0")
        self.homes[0].mkdir()
        self.states.append(NOTHING)
        for count in range(1, dates + 1):
            home = self.home(count - 1, self.folder / f"undisturbed-{count}")
            running = self.start(self.files, home, [self.dates[count - 1]], self.folder / f"undisturbed-{count}.log")
            if running.wait(3600):
                raise RuntimeError(running.text())
            self.homes.append(home)
            self.states.append(served(home))
            self.steps = running.step_seconds()
            if (steps := tuple(running.steps())) != STEPS:
                raise RuntimeError(f"a run has other steps than STEPS: {steps}")


def slice_scene(folder: Path, dates: int = len(DATES)) -> Scene:
    """A small shop with a fast model."""
    scene = Scene(folder, folder / "shop", DATES)
    write_shop(scene.files, **SHOP)
    scene.play(dates)
    return scene


def full_scene(folder: Path) -> Scene:
    """Online Retail II with everything as it is by default."""
    scene = Scene(folder, Path(os.environ["ALMANAC_DATA"]).resolve() / "online-retail-ii", FULL_DATES, full=True)
    scene.play(2)
    return scene

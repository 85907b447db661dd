"""Faults of `benchmarks.chaos --full`: ten that come upon the whole job on real data, with everything as it is by default."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.chaos_company import second_run
from benchmarks.chaos_disk import full_disk
from benchmarks.chaos_fault import Fault
from benchmarks.chaos_files import cut, meanwhile, served_in_use
from benchmarks.chaos_kills import gone, told_to_end, within
from benchmarks.chaos_process import descendants
from benchmarks.chaos_scene import STEPS
from benchmarks.chaos_stage import Stage

KIND = "the full job"
SCARCE_BYTES = 20 << 20


def faults() -> Iterator[Fault]:
    """One of most kinds; two dates take part, the second is disturbed."""
    for step in ("load", "judge", "score", "publish"):
        yield Fault(KIND, f"kill -9 within {step}", partial(within, STEPS.index(step)), 1)
    yield Fault(KIND, "kill -9 as the link is about to turn", at_the_link, 1)
    yield Fault(KIND, "kill -9 amid a backfill", amid_a_backfill, 0, 2)
    yield Fault(KIND, "SIGTERM after graph", partial(told_to_end, signal.SIGTERM, "graph"), 1)
    yield Fault(KIND, "full disk", scarce_disk, 1, needs=("root",))
    yield Fault(KIND, "the served file cut during training", partial(served_in_use, "graph"), 1)
    yield Fault(KIND, "graph.pt cut meanwhile", partial(meanwhile, "graph", "graph.pt", cut), 1)
    yield Fault(KIND, "a run of the same date", partial(second_run, "the same date"), 1)


def amid_a_backfill(stage: Stage) -> str:
    """Once the first of its dates is served, the second is on its way; its processes must end with it."""
    running = stage.backfill(0, 1)
    link = stage.serving / "almanac.duckdb"
    running.until(lambda: os.path.lexists(link), "the first date was served")
    helpers = descendants(running.pid)
    running.send(signal.SIGKILL)
    running.must_end_by(signal.SIGKILL)
    return f"killed {running.last_step()}; {gone(helpers)}"


def scarce_disk(stage: Stage) -> str:
    """A file system with room for the raw tables of one more day, not for a graph and a version for readers."""
    stage.scene.made["growth"] = SCARCE_BYTES
    return full_disk(1.0, stage)


def at_the_link(stage: Stage) -> str:
    """Once the new version lies beside the old one, before or as readers are turned to it."""
    running = stage.run()
    before = set(stage.serving.glob("almanac-*.duckdb"))
    running.until(lambda: set(stage.serving.glob("almanac-*.duckdb")) - before, "a new version was there", pause=0.0005)
    running.send(signal.SIGKILL)
    begun = time.monotonic()
    running.must_end_by(signal.SIGKILL)
    served = os.path.realpath(stage.serving / "almanac.duckdb")
    old = served in {os.path.realpath(file) for file in before}
    return (
        f"killed in {time.monotonic() - begun:.1f} s, {running.last_step()}; readers see the {'old' if old else 'new'}"
    )

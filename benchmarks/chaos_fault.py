"""One fault of `benchmarks.chaos` from its beginning to the run that makes it good."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos_checks import after_repair, of_readers
from benchmarks.chaos_process import DidNotHappen, Running
from benchmarks.chaos_scene import Scene
from benchmarks.chaos_stage import Stage


@dataclass(frozen=True)
class Fault:
    """What is done to a run; `inject` does it, asserts that it took place and tells how.

    published: dates in the home before; goal: dates afterwards; needs: programs without which it cannot be tried.
    """

    kind: str
    name: str
    inject: Callable[[Stage], str]
    published: int = 2
    goal: int = 0
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.kind}: {self.name}"


@dataclass
class Outcome:
    """What became of a fault; `wrong` is all that was not as it should be."""

    kind: str
    name: str
    happened: str | None = None
    readers: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    repair_seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return self.happened is not None and not self.readers and not self.wrong

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def suffer(fault: Fault, scene: Scene, folder: Path) -> Outcome:
    """Lets the fault happen to a copy of a home, then runs the same date undisturbed, and looks at everything."""
    outcome = Outcome(fault.kind, fault.name)
    begun = time.monotonic()
    folder.mkdir()
    folder.chmod(0o755)
    stage = Stage(scene, folder, fault.published, goal=fault.goal)
    try:
        try:
            with stage.watching():
                outcome.happened = fault.inject(stage)
            outcome.readers = list(of_readers(stage))
        except DidNotHappen as error:
            outcome.wrong.append(f"did not happen: {error}")
        except Exception as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}"[-700:] or traceback.format_exc()[-700:])
        finally:
            for step in reversed(stage.undo):
                step()
        if outcome.happened is not None:
            mend(stage, outcome)
    finally:
        for step in reversed(stage.ends):
            step()
        if outcome.is_good:
            shutil.rmtree(folder)
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def mend(stage: Stage, outcome: Outcome) -> None:
    """The next undisturbed run, which must make everything good, while a reader looks on."""
    stage.watched.clear()
    stage.failures.clear()
    begun = time.monotonic()
    with stage.watching():
        running = again(stage)
        code = running.wait()
    outcome.repair_seconds = round(time.monotonic() - begun, 1)
    if code:
        outcome.wrong.append(f"the next run ended with {code}: {running.text()[-500:]}")
        return
    outcome.readers += of_readers(stage)
    outcome.wrong += after_repair(stage)


def again(stage: Stage) -> Running:
    """The run or backfill that the fault met, once more."""
    return stage.run() if stage.goal == stage.published + 1 else stage.backfill(stage.published, stage.goal - 1)

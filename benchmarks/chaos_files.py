"""Faults of `benchmarks.chaos`: a file is cut, overwritten, taken away or put in another's place, at rest or in use."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.chaos_fault import Fault
from benchmarks.chaos_process import DidNotHappen, Running
from benchmarks.chaos_stage import Stage

Damage = Callable[[Path], object]
SLOW = "openat:delay_exit=1500000"  # after each opening of the file there is time to change it


def cut(path: Path) -> None:
    """The first half is left."""
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    """No byte is left."""
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    """Zeros instead of what was there, as many."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))


def taken_away(path: Path) -> None:
    """A file, a link or a folder is gone."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def grown(path: Path) -> None:
    """More at its end, as by a writer that is not done."""
    with path.open("ab") as file:
        file.write(bytes(5000))


def replaced(path: Path) -> None:
    """Another file moved into its place: the same rows but the first."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    pq.write_table(rows.slice(1), path.with_name(f".{path.name}"))
    path.with_name(f".{path.name}").replace(path)


AT_REST: dict[str, tuple[str, tuple[Damage, ...]]] = {
    "the served file": ("serving/almanac-{newest}-*.duckdb", (cut, emptied, overwritten, taken_away)),
    "the version before": ("serving/almanac-{oldest}-*.duckdb", (cut, taken_away)),
    "the link": ("serving/almanac.duckdb", (taken_away,)),
    "the newest Parquet file": (
        "serving/recommendations/as_of={newest}/*.parquet",
        (cut, emptied, overwritten, taken_away),
    ),
    "an old Parquet file": ("serving/recommendations/as_of={oldest}/*.parquet", (cut, taken_away)),
    "all that is served": ("serving", (taken_away,)),
    "home.json": ("home.json", (cut, emptied, taken_away)),
    "status.json": ("status.json", (cut, emptied)),
    "the newest model": ("models/*{newest}*", (cut, taken_away)),
}
IN_PROGRESS: dict[str, tuple[str, str, tuple[Damage, ...]]] = {  # after which step, which file of the date in progress
    "graph.pt": ("graph", "graph.pt", (cut, taken_away)),
    "judged.json": ("judge", "judged.json", (cut, emptied)),
    "model.pt": ("train", "model.pt", (cut, emptied)),
    "the scored lists": ("score", "recommendations.parquet", (cut, taken_away)),
}
INPUT: tuple[Damage, ...] = (cut, emptied, overwritten, taken_away, grown, replaced)


def faults() -> Iterator[Fault]:
    """Files at rest before a run, of a date in progress while it stands still or after it was killed, and input being read."""
    for name, (place, damages) in AT_REST.items():
        for damage in damages:
            yield Fault("damaged file", f"{name} {told(damage)}", partial(at_rest, place, damage))
    for name, (step, file, damages) in IN_PROGRESS.items():
        for damage in damages:
            yield Fault(
                "damaged file in use", f"{name} {told(damage)} meanwhile", partial(meanwhile, step, file, damage)
            )
            yield Fault(
                "damaged file in use", f"{name} {told(damage)} after a kill", partial(after_a_kill, step, file, damage)
            )
    yield Fault("damaged file in use", "the served file cut during training", partial(served_in_use, "judge"))
    for damage in INPUT:
        yield Fault(
            "input that changes", f"{told(damage)} while it is read", partial(while_read, damage), needs=("strace",)
        )
        yield Fault("input that changes", f"{told(damage)} after it was landed", partial(once_landed, damage))


def told(damage: Damage) -> str:
    return getattr(damage, "__name__", "").replace("_", " ")


def at_rest(place: str, damage: Damage, stage: Stage) -> str:
    """The run comes upon the damage by itself: it is the one that must make it good."""
    newest, oldest = stage.scene.dates[stage.published - 1], stage.scene.dates[0]
    paths = sorted(stage.home.glob(place.format(newest=newest, oldest=oldest)))
    stage.damaged = place.startswith("serving")
    stage.lost = place.startswith("models")
    size = sum(path.lstat().st_size for path in paths)
    with stage.looking:
        for path in paths:
            damage(path)
    if not paths:
        raise DidNotHappen(f"no file {place}")
    return f"{', '.join(path.name for path in paths)} of {size:,} bytes"


def meanwhile(step: str, file: str, damage: Damage, stage: Stage) -> str:
    """The run is stopped, the file damaged, the run goes on."""
    running = stage.run()
    running.until_step(step)
    running.send(signal.SIGSTOP)
    try:
        path = next(stage.home.glob(f"work/*/{file}"))
    except StopIteration:
        raise DidNotHappen(f"{file} was gone already, {running.last_step()}") from None
    finally:
        done = running.steps()
        stage.undo.append(lambda: running.code is None and running.end())
    damage(path)
    running.send(signal.SIGCONT)
    code = running.wait()
    return f"after {done[-1]}; the run ended with {code}: {_said(running)}"


def after_a_kill(step: str, file: str, damage: Damage, stage: Stage) -> str:
    """What a killed run left for the next one is damaged."""
    running = stage.run()
    running.until_step(step)
    running.send(signal.SIGKILL)
    running.must_end_by(signal.SIGKILL)
    paths = list(stage.home.glob(f"work/*/{file}"))
    if not paths:
        raise DidNotHappen(f"no {file}, {running.last_step()}")
    damage(paths[0])
    return f"killed {running.last_step()}, then {file} {told(damage)}"


def served_in_use(step: str, stage: Stage) -> str:
    """A reader that has it open may fail; the run puts another in its place."""
    running = stage.run()
    running.until_step(step)
    stage.damaged = True
    file = (stage.serving / "almanac.duckdb").resolve()
    cut(file)
    code = running.wait()
    return f"{file.name} cut, the run ended with {code}"


def while_read(damage: Damage, stage: Stage) -> str:
    """As soon as the run has the file open; it must not publish from it."""
    file = stage.own_files() / "interactions.parquet"
    kept = shutil.copy2(file, stage.folder / "kept.parquet")
    stage.undo.append(partial(shutil.copy2, kept, file))
    running = stage.run(traced="openat", injected=SLOW, path=file)
    running.until(lambda: _has_open(running.pid, file), f"{file.name} was open", pause=0.002)
    damage(file)
    code = running.wait()
    if code != 3:
        raise AssertionError(f"not refused: ended with {code}: {running.text()[-400:]}")
    return f"open in process {running.pid}, then {told(damage)}: {_said(running)}"


def once_landed(damage: Damage, stage: Stage) -> str:
    """What was read stands in the warehouse: the run goes on with it."""
    file = stage.own_files() / "interactions.parquet"
    kept = shutil.copy2(file, stage.folder / "kept.parquet")
    stage.undo.append(partial(shutil.copy2, kept, file))
    running = stage.run()
    running.until_step("land")
    damage(file)
    code = running.wait()
    if code:
        raise AssertionError(f"ended with {code}: {running.text()[-400:]}")
    return f"{told(damage)} after it was landed; the run went on to its end"


def _has_open(pid: int, file: Path) -> bool:
    try:
        return any(os.path.realpath(link) == str(file) for link in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False


def _said(running: Running) -> str:
    time.sleep(0.01)
    lines = [line for line in running.text().splitlines() if "Error" in line]
    return lines[-1][:200] if lines else "no error"

"""Faults of `benchmarks.chaos`: the disk is full, a limit is reached, the disk fails, a permission is gone."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.chaos_fault import Fault
from benchmarks.chaos_process import UNPRIVILEGED, DidNotHappen, Running
from benchmarks.chaos_stage import Stage
from benchmarks.chaos_trace import TRACED, nth_call

PLENTY = 24 << 20, 4 << 30  # more bytes than a run takes: of the shop, of the full job
FULL_BYTES = 256 << 10  # less than this free, and DuckDB cannot grow a file by a block
DENIED = (
    "Permission denied",
    "cannot be written",
    "cannot be read",
    "cannot be opened",
    "cannot be looked at",
    "Read-only",
)
CLOSED = {  # what an unprivileged user may no longer write, or not even read
    "the home": (".", 0o555),
    "warehouse.duckdb": ("warehouse.duckdb", 0o444),
    "warehouse.duckdb to all": ("warehouse.duckdb", 0o000),
    "serving/": ("serving", 0o555),
    "serving/recommendations/": ("serving/recommendations", 0o555),
    "models/": ("models", 0o555),
    "work/": ("work", 0o555),
    "home.json": ("home.json", 0o000),
    "the lock": ("lock", 0o000),
    "serving/ to all": ("serving", 0o000),
}
INPUT = {"an input file": "interactions.parquet", "the items": "items.parquet", "the input folder": "."}


def faults() -> Iterator[Fault]:
    """Everything that keeps a run from writing or reading."""
    for share in (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95):
        yield Fault(
            "full disk", f"{share} % of what a run takes is free", partial(full_disk, share / 100), needs=("root",)
        )
    for kilobytes in (16, 64, 256, 512, 1024):
        yield Fault("limit", f"files of at most {kilobytes} kB", partial(small_files, kilobytes << 10))
    for count in (16, 24):
        yield Fault("limit", f"at most {count} open files", partial(few_files, count), needs=("prlimit",))
    for call, error, parts, on in (
        ("pwrite64", "ENOSPC", 6, "+"),
        ("fdatasync", "EIO", 8, ""),
        ("pwrite64", "EIO", 4, ""),
    ):
        for part in range(parts):
            name = f"{error} at {call}{' and after' * bool(on)}, {part}/{parts - 1} on its way"
            yield Fault("failing disk", name, partial(failing, call, error, part, parts, on), needs=("strace",))
    for number in range(0, 13, 2):
        inject = partial(failing, "rename", "EACCES", number, 0, "")
        yield Fault("failing disk", f"EACCES at rename {number + 1}", inject, needs=("strace",))
    for name, (place, mode) in CLOSED.items():
        yield Fault("permissions", f"{name} closed", partial(closed, place, mode), needs=("root",))
    for name, place in INPUT.items():
        yield Fault("permissions", f"{name} closed", partial(closed_input, place), needs=("root",))
    yield Fault("permissions", "prefect/ closed", closed_prefect, needs=("root", "setpriv"))
    for step, place in (("graph", "serving"), ("judge", "models"), ("validate", "."), ("train", "warehouse.duckdb")):
        yield Fault("permissions", f"{place} closed after {step}", partial(closed_later, step, place), needs=("root",))


def full_disk(share: float, stage: Stage) -> str:
    """The home on a file system of its own that has room for a part of what a run takes; made roomy again afterwards."""
    need = stage.scene.made.get("growth") or _growth(stage)
    stage.scene.made["growth"] = need
    _mount(stage)
    _resize(stage.home, max(4096, int(need * share)))
    stage.undo.append(partial(_resize, stage.home, PLENTY[stage.scene.full]))
    running, least = _least_free(stage)
    code = running.code
    if not code or not (least <= FULL_BYTES or "No space left on device" in running.text()):
        raise DidNotHappen(f"ended with {code}, {least:,} bytes were still free: {running.text()[-300:]}")
    return f"{least:,} bytes left of {need * share / 1e6:.1f} MB, {running.last_step()}: {_message(running)}"


def small_files(most: int, stage: Stage) -> str:
    running = stage.run(limits={resource.RLIMIT_FSIZE: most})
    code = running.wait()
    said = running.text()
    if not code or not any(sign in said for sign in ("File too large", "cannot be")):
        raise DidNotHappen(f"ended with {code}: {said[-500:]}")
    return f"{running.last_step()}: {_message(running)}"


def few_files(count: int, stage: Stage) -> str:
    """Of the command line, which looks before it starts Prefect."""
    date_of_shop = "--source", "shop", "--input", stage.files, "--as-of", stage.as_of
    running = stage.almanac("run", *date_of_shop, by=("prlimit", f"--nofile={count}", "--"))
    code = running.wait(60)
    if not code or "can be open at once" not in running.text():
        raise DidNotHappen(f"ended with {code}: {running.text()[-500:]}")
    return _message(running)


def failing(call: str, error: str, part: int, parts: int, on: str, stage: Stage) -> str:
    """A system call of the main thread fails as it would on a disk that is full or broken; on: all that follow, too."""
    number = nth_call(stage, call, part, parts) if parts else part + 1
    running = stage.run(traced=TRACED, injected=f"{call}:error={error}:when={number}{on}")
    code = running.wait()
    assert running.tracer
    hit = [line for line in running.tracer.calls if "(INJECTED)" in line]
    if not hit:
        raise DidNotHappen(f"the call did not come; ended with {code}")
    if not any(error in line for line in hit):
        raise AssertionError(hit[0])
    place = hit[0].split(None, 1)[1].replace(f"{stage.home}/", "")
    return f"{running.last_step()}, {place[:100]}: ended with {code}, {_message(running)}"


def closed(place: str, mode: int, stage: Stage) -> str:
    _give_away(stage)
    _close(stage, stage.home / place, mode)
    return _denied(stage, stage.run())


def closed_input(place: str, stage: Stage) -> str:
    stage.own_files()
    _give_away(stage)
    _close(stage, stage.files / place, 0o000)
    return _denied(stage, stage.run())


def closed_later(step: str, place: str, stage: Stage) -> str:
    _give_away(stage)
    running = stage.run()
    running.until_step(step)
    _close(stage, stage.home / place, 0o444 if place.endswith(".duckdb") else 0o555)
    return _denied(stage, running)


def closed_prefect(stage: Stage) -> str:
    """Without a server elsewhere Prefect keeps its state there: it is somebody else's, and root has no power over that."""
    folder = stage.home / "prefect"
    _close(stage, folder, 0o555)
    os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    stage.undo.append(partial(os.chown, folder, os.geteuid(), os.getegid()))
    powerless = ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--")
    running = stage.execute({"PREFECT_API_URL": "", "PREFECT_HOME": str(folder)}, *powerless)
    return _denied(stage, running)


def _give_away(stage: Stage) -> None:
    """The home becomes one of an unprivileged user, as whom all runs on this stage go."""
    stage.user = UNPRIVILEGED
    for folder in (stage.home, stage.files):
        if folder != stage.scene.files:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)


def _close(stage: Stage, path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True) if not path.exists() else None
    before = path.stat().st_mode
    path.chmod(mode)
    stage.undo.append(partial(path.chmod, before))


def _denied(stage: Stage, running: Running) -> str:
    code = running.wait()
    if not code or not any(words in running.text() for words in DENIED):
        raise DidNotHappen(f"ended with {code}: {running.text()[-500:]}")
    return f"ended with {code}, {running.last_step()}: {_message(running)}"


def _message(running: Running) -> str:
    lines = [line for line in running.text().splitlines() if "Error" in line]
    return lines[-1][:200] if lines else running.text()[-200:]


def _mount(stage: Stage) -> None:
    """Moves the home onto a file system in memory with plenty of room."""
    with stage.looking:
        aside = stage.home.rename(stage.folder / "aside")
        stage.home.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "chaos", stage.home], check=True)
        stage.ends.append(partial(subprocess.run, ["umount", "--lazy", stage.home], check=True))
        shutil.copytree(aside, stage.home, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(aside)
    _resize(stage.home, PLENTY[stage.scene.full])


def _resize(home: Path, free: int) -> None:
    """Lets the file system have so many bytes beside those that are taken."""
    room = os.statvfs(home)
    size = (room.f_blocks - room.f_bfree) * room.f_frsize + free
    subprocess.run(["mount", "-o", f"remount,size={size}", home], check=True)


def _growth(stage: Stage) -> int:
    """How much disk a run takes at its worst moment."""
    _mount(stage)
    running, least = _least_free(stage)
    if running.code:
        raise RuntimeError(running.text())
    with stage.looking:  # until the home is there again
        stage.ends.pop()()
        stage.reset()
    return PLENTY[stage.scene.full] - least


def _least_free(stage: Stage) -> tuple[Running, int]:
    """A run to its end, and how little room there was meanwhile."""
    least = [PLENTY[stage.scene.full]]
    over = threading.Event()

    def measure() -> None:
        while not over.wait(0.002):
            room = os.statvfs(stage.home)
            least.append(room.f_bavail * room.f_frsize)

    meter = threading.Thread(target=measure)
    meter.start()
    try:
        running = stage.run()
        running.wait()
        time.sleep(0.01)
    finally:
        over.set()
        meter.join()
    return running, min(least)

"""Faults of `benchmarks.chaos`: another command, a wrong clock, a server that goes away, all in the middle of a run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.chaos_fault import Fault
from benchmarks.chaos_process import DidNotHappen, Running, descendants, execute
from benchmarks.chaos_server import answers, prefect_server
from benchmarks.chaos_stage import Stage
from tasks.warehouse import open_warehouse

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
CLOCKS = {"a day back": "-1d", "a year ahead": "+365d", "in 1999": "@1999-01-01 00:00:00", "an hour back": "-1h"}
REFUSED = "another run is writing"
COMMANDS: dict[str, tuple[object, ...]] = {
    "rollback": ("rollback",),
    "promote": ("promote", "shop-model"),
    "models": ("models",),
    "forget-user": ("forget-user", "u000001"),
}


def faults() -> Iterator[Fault]:
    """Everything that is not the run's own doing."""
    for name in ("the same date", "the next date", "a backfill"):
        yield Fault("a second command", f"a run of {name}" if "date" in name else name, partial(second_run, name))
    for name, command in COMMANDS.items():
        yield Fault("a second command", name, partial(second_command, command))
    yield Fault("a second command", "status and show", looked_at)
    yield Fault("a second command", "a reader holds the warehouse", warehouse_held)
    yield Fault("a second command", "a reader holds the served file open to write", served_file_held)
    for name, clock in CLOCKS.items():
        yield Fault("clock", f"{name}, then right", partial(wrong_clock, clock), needs=("faketime",))
        yield Fault("clock", f"right and killed, then {name}", partial(clock_after_kill, clock), needs=("faketime",))
    for step in ("load", "judge", "publish"):
        yield Fault("clock", f"a day back after {step}", partial(clock_jumps, step, "-1d"), needs=("faketime",))
    for step in ("land", "graph", "judge", "audit", "publish"):
        yield Fault("Prefect server", f"killed after {step}", partial(server_killed, step))
    yield Fault("Prefect server", "hangs for ten seconds", server_hangs)
    yield Fault("Prefect server", "not there from the start", server_missing)
    yield Fault("Prefect server", "the run's own one killed", own_server_killed)


def second_run(name: str, stage: Stage) -> str:
    """While the run has the lock, the other one is refused and changes nothing."""
    running = stage.run()
    running.until_step("land")
    if name == "a backfill":
        other = stage.backfill(stage.published, stage.published + 1)
    else:
        other = stage.run(as_of=stage.scene.dates[stage.published + (name == "the next date")])
    return _refused(running, other)


def second_command(command: tuple[object, ...], stage: Stage) -> str:
    running = stage.run()
    running.until_step("land")
    running.send(signal.SIGSTOP)  # commands of their own take longer to start than a run takes
    other = stage.almanac(*command)
    try:
        other.wait()
    finally:
        running.send(signal.SIGCONT)
    return _refused(running, other)


def looked_at(stage: Stage) -> str:
    """Commands that only look answer at once, and leave the run alone."""
    running = stage.run()
    running.until_step("graph")
    running.send(signal.SIGSTOP)
    try:
        status, show = stage.almanac("status"), stage.almanac("show", "u000001")
        codes = status.wait(), show.wait()
    finally:
        running.send(signal.SIGCONT)
    assert codes == (0, 0), status.text() + show.text()
    code = running.wait()
    assert code == 0, running.text()[-500:]
    return f"both answered while the run stood still: {status.text().splitlines()[-1][:120]}"


def warehouse_held(stage: Stage) -> str:
    """Someone has opened what nobody but a run should."""
    holder = _hold(stage, stage.home / "warehouse.duckdb", True)
    running = stage.run()
    code = running.wait()
    assert holder.code is None
    holder.end()
    assert code == 1, running.text()[-500:]
    return f"process {holder.pid} held it, the run ended with 1: {_said(running)}"


def served_file_held(stage: Stage) -> str:
    """A reader that opens to write keeps other readers out, but not the next version from them."""
    stage.damaged = True
    holder = _hold(stage, (stage.serving / "almanac.duckdb").resolve(), False)
    running = stage.run()
    code = running.wait()
    assert holder.code is None
    holder.end()
    assert code == 0, running.text()[-500:]
    return f"process {holder.pid} held it through the whole run"


def wrong_clock(clock: str, stage: Stage) -> str:
    """The run that the fault meets, under another clock from beginning to end."""
    running = stage.execute(environment=_clock(clock))
    code = running.wait()
    return f"{_started(stage)}; ended with {code}{'' if code == 0 else f': {_said(running)}'}"


def clock_after_kill(clock: str, stage: Stage) -> str:
    """A killed run's row, date folder and files meet a run that seems to come before or long after it."""
    killed = stage.run()
    killed.until_step("train")
    killed.send(signal.SIGKILL)
    killed.must_end_by(signal.SIGKILL)
    return wrong_clock(clock, stage)


def clock_jumps(step: str, clock: str, stage: Stage) -> str:
    """The clock is set while the run is on its way."""
    file = stage.folder / "clock"
    file.write_text("+0d")
    running = stage.execute(environment=_clock(None, file))
    running.until_step(step)
    file.write_text(clock)
    code = running.wait()
    return f"{clock} {running.last_step()}; ended with {code}{'' if code == 0 else f': {_said(running)}'}"


def server_killed(step: str, stage: Stage) -> str:
    with prefect_server(stage.folder / "prefect") as (url, server):
        running = stage.execute(environment={"PREFECT_API_URL": url})
        running.until_step(step)
        server.end()
        server.wait()
        assert not answers(url)
        begun = time.monotonic()
        code = running.wait()
        took = time.monotonic() - begun
    return f"the server was gone {running.last_step()}; the run ended with {code} {took:.0f} s later: {_said(running)}"


def server_hangs(stage: Stage) -> str:
    with prefect_server(stage.folder / "prefect") as (url, server):
        running = stage.execute(environment={"PREFECT_API_URL": url})
        running.until_step("load")
        server.send(signal.SIGSTOP)
        time.sleep(10)
        still = running.code is None
        server.send(signal.SIGCONT)
        code = running.wait()
    if not still:
        raise DidNotHappen(f"the run ended with {code} meanwhile")
    return f"the server stood still, the run {running.last_step()}; it ended with {code}"


def server_missing(stage: Stage) -> str:
    running = stage.execute(environment={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    code = running.wait()
    if not code:
        raise DidNotHappen("the run needed no server")
    return f"ended with {code}: {_said(running)}"


def own_server_killed(stage: Stage) -> str:
    """Without a server elsewhere a run starts one of its own."""
    running = stage.execute(environment={"PREFECT_API_URL": "", "PREFECT_HOME": str(stage.home / "prefect")})
    running.until_step("load")
    servers = descendants(running.pid)
    if not servers:
        raise DidNotHappen("the run had started no server")
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    code = running.wait()
    return f"process {servers[0]} killed; the run ended with {code}: {_said(running)}"


def _refused(running: Running, other: Running) -> str:
    refused = other.wait()
    if running.code is not None:
        raise DidNotHappen(f"the run had ended with {running.code}")
    assert refused == 2 and REFUSED in other.text(), f"the second ended with {refused}: {other.text()[-400:]}"
    code = running.wait()
    assert code == 0, running.text()[-500:]
    return f"refused while the run was on its way: {other.text().strip()[-150:]}"


def _hold(stage: Stage, file: Path, read_only: bool) -> Running:
    """A process that opens a DuckDB file and keeps it open."""
    script = f"import duckdb, time; c = duckdb.connect({str(file)!r}, read_only={read_only}); print('open', flush=True)"
    holder = execute([sys.executable, "-c", f"{script}; time.sleep(600)"], stage.log())
    holder.until(lambda: "open" in holder.text(), "the file was open")
    return holder


def _clock(clock: str | None, file: Path | None = None) -> dict[str, str]:
    library = next(str(path) for path in Path("/").glob(LIBRARY[1:]))
    settings = {"LD_PRELOAD": library, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    if file:
        return settings | {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    return settings | {"FAKETIME": clock or ""}


def _started(stage: Stage) -> str:
    """When the newest run of the date began, by its own clock; raises where that was about now."""
    with open_warehouse(stage.home) as warehouse:
        found = warehouse.execute(
            "select started_at, abs(epoch(started_at) - epoch(now()::timestamp)) from mart.runs where as_of = $as_of"
            " order by abs(epoch(started_at) - epoch(now()::timestamp)) desc limit 1",
            {"as_of": stage.as_of},
        ).fetchall()
    if not found or found[0][1] < 1800:
        raise DidNotHappen(f"the run's clock was right: {found}")
    return f"began at {found[0][0]:%Y-%m-%d %H:%M} by its clock"


def _said(running: Running) -> str:
    lines = [line for line in running.text().splitlines() if "Error" in line]
    return lines[-1][:200] if lines else "no error"

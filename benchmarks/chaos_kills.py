"""Faults of `benchmarks.chaos`: a run, a backfill or one of its processes ends by a signal, at every step and between them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial

from benchmarks.chaos_fault import Fault
from benchmarks.chaos_process import DidNotHappen, Running, descendants
from benchmarks.chaos_scene import STEPS
from benchmarks.chaos_stage import Stage
from benchmarks.chaos_trace import TRACED, nth_call

SINGLE = {"rename": 13, "symlink": 1, "fsync": 3}  # calls that a run enters so often, each one its own fault
MANY = {"unlink": 10, "fdatasync": 24, "ftruncate": 8, "pwrite64": 8}  # so many faults, from the first to the last call
GONE_SECONDS = 20


def faults() -> Iterator[Fault]:
    """Kills of a run, of a backfill, of a process of a backfill, and of commands."""
    for number, step in enumerate(STEPS):
        again = " again" * (step in STEPS[:number])
        yield Fault("kill -9, step by step", f"within {step}{again}", partial(within, number))
        if step != STEPS[-1]:
            yield Fault("kill -9, step by step", f"after {step}{again}", partial(after, number))
    for calls in (SINGLE, MANY):
        for call, parts in calls.items():
            for part in range(parts):
                which = f"{call} {part + 1}" if calls is SINGLE else f"{call} {part}/{parts - 1} on its way"
                inject = partial(at_call, call, part, parts if calls is MANY else 0)
                yield Fault("kill -9, at a system call", f"at {which}", inject, needs=("strace",))
    for name, number in (("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT)):
        for step in ("land", "load", "graph", "judge", "audit", "publish"):
            yield Fault("SIGTERM, SIGINT", f"{name} after {step}", partial(told_to_end, number, step))
    for share in range(12):
        yield Fault("kill -9, backfill", f"after {share}/12", partial(backfill, signal.SIGKILL, share / 12), 1, 4)
    for step in ("load", "publish"):
        for name, number in (("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT)):
            yield Fault(
                "SIGTERM, SIGINT", f"{name} to a backfill after {step}", partial(backfill_told, number, step), 1, 4
            )
    for wait in (0.5, 2, 4, 6):
        yield Fault("kill -9, process of a backfill", f"{wait} s on", partial(worker, wait), 1, 4)


def within(number: int, stage: Stage) -> str:
    """At about the middle of a step, by how long it took undisturbed."""
    took = stage.scene.steps[number][1]
    for share in (0.5, 0.25, 0.0):
        running = stage.run()
        running.until(lambda run=running: len(run.steps()) >= number, f"{number} steps were done", pause=0.001)
        time.sleep(took * share)
        if len(running.steps()) == number and running.code is None:
            return _killed(running)
        running.wait()
        stage.reset()
    raise DidNotHappen(f"{STEPS[number]} was over too soon")


def after(number: int, stage: Stage) -> str:
    running = stage.run()
    running.until(lambda: len(running.steps()) > number, f"{STEPS[number]} was done", pause=0.001)
    return _killed(running)


def at_call(call: str, part: int, parts: int, stage: Stage) -> str:
    """As the main thread enters a call, which then does not take place."""
    number = nth_call(stage, call, part, parts) if parts else part + 1
    running = stage.run(traced=TRACED, injected=f"{call}:signal=KILL:when={number}")
    running.must_end_by(signal.SIGKILL)
    assert running.tracer
    entered = [line for line in running.tracer.calls if line.startswith(str(running.pid)) and f" {call}(" in line]
    told = entered[-1].split(None, 1)[1].replace(f"{stage.home}/", "")
    return f"killed {running.last_step()}, entering {call} {len(entered)}: {told[:160]}"


def told_to_end(number: int, step: str, stage: Stage) -> str:
    running = stage.run()
    running.until_step(step)
    running.send(number)
    code = running.wait(60)
    if code == 0:
        raise DidNotHappen("the run went on to its end")
    return f"ended with {code}, {running.last_step()}"


def backfill(number: int, share: float, stage: Stage) -> str:
    """At a share of the time that a backfill of the dates takes; the processes it started must end with it."""
    took = stage.scene.made.get("backfill seconds")
    if took is None:
        running = stage.backfill(stage.published, stage.goal - 1)
        if running.wait():
            raise DidNotHappen(running.text()[-500:])
        took = stage.scene.made["backfill seconds"] = time.monotonic() - running.began
        stage.reset()
    for sooner in (1.0, 0.8, 0.5):
        running = stage.backfill(stage.published, stage.goal - 1)
        time.sleep(took * share * sooner)
        if running.code is None:
            helpers = descendants(running.pid)
            told = _ended(running, number)
            return f"{told}; {gone(helpers)}"
        stage.reset()
    raise DidNotHappen("the backfill was over too soon")


def backfill_told(number: int, step: str, stage: Stage) -> str:
    running = stage.backfill(stage.published, stage.goal - 1)
    running.until_step(step)
    helpers = descendants(running.pid)
    running.send(number)
    code = running.wait(120)
    if code == 0:
        raise DidNotHappen("the backfill went on to its end")
    return f"ended with {code}, {running.last_step()}; {gone(helpers)}"


def worker(wait: float, stage: Stage) -> str:
    """One of the processes that learn and score, some time after they began."""
    running = stage.backfill(stage.published, stage.goal - 1)
    running.until(lambda: _workers(running), "a process was started")
    time.sleep(wait)
    helpers = _workers(running)
    if not helpers:
        raise DidNotHappen("no process was there any more")
    os.kill(helpers[0], signal.SIGKILL)
    code = running.wait()
    if code != 1:
        raise DidNotHappen(f"the backfill ended with {code}: {running.text()[-300:]}")
    if "a process that worked on" not in running.text():
        raise AssertionError(f"no message of the killed process: {running.text()[-500:]}")
    return f"process {helpers[0]} of {len(helpers)} killed, the backfill said so; {gone(descendants(running.pid))}"


def _workers(running: Running) -> list[int]:
    """The processes of the pool: not the one that tracks their resources."""
    found = []
    for pid in descendants(running.pid):
        try:
            with open(f"/proc/{pid}/cmdline") as command:
                if "spawn_main" in command.read():
                    found.append(pid)
        except FileNotFoundError:
            continue
    return found


def _killed(running: Running) -> str:
    return _ended(running, signal.SIGKILL)


def _ended(running: Running, number: int) -> str:
    running.send(number)
    running.must_end_by(number)
    return f"killed {running.last_step()}"


def gone(pids: list[int]) -> str:
    """Waits for processes to end; those of a run that is no more must not go on."""
    deadline = time.monotonic() + GONE_SECONDS
    while left := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{len(left)} processes of the run went on for {GONE_SECONDS} s after its end")
        time.sleep(0.1)
    return f"{len(pids)} processes ended with it"

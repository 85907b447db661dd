"""The processes that `benchmarks.chaos` sends faults to: started fast, watched by their log lines, killed at a system call."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WARM = get_context("forkserver")  # one process imports everything and forks a fresh one per run
WARM.set_forkserver_preload(["benchmarks.chaos_warm"])
STEP = re.compile(r"^(?:\[[^]]*\])?\s*([a-z]+)\s+([\d.]+) s\s*$")
PATIENCE_SECONDS = 1200
UNPRIVILEGED = 65534  # nobody
Limits = dict[int, int]  # resource → most


class DidNotHappen(Exception):
    """The fault did not take place as it should have."""


@dataclass
class Running:
    """A process on its way, and what it has logged."""

    process: Any  # multiprocessing's or subprocess's
    log: Path
    told: Any = None  # the pipe through which it is let go
    tracer: Tracer | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def steps(self) -> list[str]:
        """The steps logged as done, as often as they were."""
        return [step for step, _ in self.step_seconds()]

    def step_seconds(self) -> list[tuple[str, float]]:
        """The steps logged as done, with how long each took."""
        return [(found[1], float(found[2])) for line in self.text().splitlines() if (found := STEP.match(line))]

    def until(self, condition: Callable[[], Any], what: str, pause: float = 0.01) -> Any:
        """Waits for it to become true; an end of the process before that is no fault of the wanted kind."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if self.code is not None and not condition():
                raise DidNotHappen(f"ended with {self.code} before {what}: {self.text()[-500:]}")
            if time.monotonic() > deadline:
                self.end()
                raise DidNotHappen(f"{what} did not come in {PATIENCE_SECONDS} s: {self.text()[-500:]}")
            time.sleep(pause)
        return found

    def until_step(self, step: str, times: int = 1) -> None:
        """Waits until the log says that a step is done."""
        self.until(lambda: self.steps().count(step) >= times, f"step {step} was done")

    def send(self, number: int) -> None:
        """A signal to this process alone; raises where it has ended by itself."""
        if self.code is not None:
            raise DidNotHappen(f"ended with {self.code} before signal {number}")
        os.kill(self.pid, number)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Its exit code; one that outlives the timeout is killed, and that is an error."""
        deadline = time.monotonic() + timeout
        while self.code is None:
            if time.monotonic() > deadline:
                self.end()
                raise TimeoutError(f"still running after {timeout:.0f} s: {self.text()[-500:]}")
            time.sleep(0.02)
        if self.tracer:
            self.tracer.end()
        code = self.code
        assert code is not None
        return code

    def end(self) -> None:
        """Kills it and all that it started."""
        for pid in [self.pid, *descendants(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def must_end_by(self, number: int) -> None:
        """Raises unless the signal ended it."""
        code = self.wait()
        if code != -number:
            raise DidNotHappen(f"ended with {code}, not by signal {number}: {self.text()[-500:]}")

    def last_step(self) -> str:
        done = self.steps()
        return f"after {len(done)} steps, the last {done[-1]}" if done else "before the first step was done"


@dataclass
class Tracer:
    """strace on a process: what it did, and a fault at one of its system calls."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def calls(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines()

    def end(self) -> None:
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def fork(
    arguments: list[object],
    log: Path,
    *,
    user: int = 0,
    limits: Limits | None = None,
    traced: str | None = None,
    injected: str | None = None,
    path: Path | None = None,
    modules: Path | None = None,
) -> Running:
    """A run or backfill of `chaos_run` in a process of its own, forked from one that has imported everything.

    user: as whom; limits: of `resource`; traced, injected: strace's, e.g. "rename" and "rename:signal=KILL:when=3"; path: of
    the only file whose calls count; modules: names, to be imported before it goes on as the user, who may not see them.
    """
    ours, theirs = WARM.Pipe()
    process = WARM.Process(target=_child, args=([str(a) for a in arguments], log, user, limits or {}, modules, theirs))
    log.write_text("")
    log.chmod(0o666)
    process.start()
    running = Running(process, log, ours)
    if traced:
        running.tracer = _trace(running, traced, injected, path)
    ours.send("go")
    running.began = time.monotonic()
    return running


def _child(arguments: list[str], log: Path, user: int, limits: Limits, modules: Path | None, told: Any) -> None:
    from benchmarks.chaos_run import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    told.recv()
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))
    for name in modules.read_text().split() if modules else ():
        with suppress(ImportError):
            import_module(name)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    main(arguments)
    if not user:
        log.with_suffix(".modules").write_text("\n".join(sys.modules))


def _trace(running: Running, traced: str, injected: str | None, path: Path | None) -> Tracer:
    output = running.log.with_suffix(".calls")
    command = ["strace", "-f", "-y", "-o", str(output), "-e", f"trace={traced}", "-p", str(running.pid)]
    command[-2:-2] = ["-e", f"inject={injected}"] if injected else []
    command[-2:-2] = ["-P", str(path)] if path else []
    said = running.log.with_suffix(".strace")
    with said.open("w") as stream:
        tracer = Tracer(subprocess.Popen(command, stderr=stream), output)
    running.until(lambda: "attached" in said.read_text(), "strace was attached")
    return tracer


def execute(command: list[object], log: Path, **environment: str) -> Running:
    """A program of its own from the start, in a session of its own."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    return Running(process, log)


def python(module: str, *arguments: object) -> list[object]:
    """The command of a module under this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(folder.name))
    found = [pid]
    for known in found:
        found += parents.get(known, [])
    return found[1:]

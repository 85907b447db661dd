"""The stage on which one fault of `benchmarks.chaos` takes place: a copy of a home, the runs on it, a reader who looks on."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.chaos_process import Running, execute, python
from benchmarks.chaos_scene import Scene, State, served


@dataclass
class Stage:
    """A copy of a home in which one fault takes place; the run that follows is to make all of it good."""

    scene: Scene
    folder: Path
    published: int  # dates, when the fault comes
    files: Path = Path()
    home: Path = Path()
    user: int = 0
    goal: int = 0  # dates published once the run after the fault is done
    damaged: bool = False  # the fault is in the served file itself: readers may fail until the next run
    undo: list[Callable[[], object]] = field(default_factory=list)  # before the run that makes good
    ends: list[Callable[[], object]] = field(default_factory=list)  # after all
    lost: bool = False  # artifacts of earlier models, which no later run makes anew
    watched: list[State] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    logs: int = 0
    postgres: str | None = None
    mirrored: Callable[[], State] | None = None  # what a reader of PostgreSQL sees

    def __post_init__(self) -> None:
        self.goal = self.goal or self.published + 1
        self.looking = threading.RLock()
        self.files = self.scene.files
        self.home = self.scene.home(self.published, self.folder / "home")

    def reset(self) -> None:
        """The home as it was before the fault, for another try."""
        with self.looking:
            shutil.rmtree(self.home)
            self.scene.home(self.published, self.home)

    @property
    def serving(self) -> Path:
        return self.home / "serving"

    @property
    def as_of(self) -> date:
        """The date of the run that the fault meets."""
        return self.scene.dates[self.published]

    def own_files(self) -> Path:
        """From here on the input is a copy of the shop's files."""
        self.files = self.folder / "files"
        shutil.copytree(self.scene.files, self.files)
        text = (self.home / "home.json").read_text()
        (self.home / "home.json").write_text(json.dumps(json.loads(text) | {"input": str(self.files)}))
        return self.files

    def log(self) -> Path:
        self.logs += 1
        return self.folder / f"log-{self.logs}"

    def run(self, as_of: date | None = None, **how: Any) -> Running:
        """Starts the date's run."""
        return self._start([as_of or self.as_of], **how)

    def backfill(self, first: int, last: int, **how: Any) -> Running:
        """Starts a backfill of dates, counted from 0, two side by side."""
        return self._start(self.scene.dates[first : last + 1], "--jobs", 2, **how)

    def execute(self, environment: dict[str, str], *by: object) -> Running:
        """Starts the date's run of the slice as a program of its own from the start, by way of another one."""
        command = python("benchmarks.chaos_run", self.files, self.home, self.as_of)
        return execute([*by, *command], self.log(), **environment)

    def almanac(self, *arguments: object, by: tuple[object, ...] = ()) -> Running:
        """Starts a command of `almanac` on the home, maybe by way of another program."""
        return execute([*by, *python("flows.cli", *arguments, "--home", self.home)], self.log())

    def _start(self, dates: list[date], *more: object, **how: Any) -> Running:
        more += ("--postgres", self.postgres) if self.postgres else ()
        if self.user:
            how |= {"user": self.user, "modules": self.scene.folder / "undisturbed-1.modules"}
        return self.scene.start(self.files, self.home, dates, self.log(), *more, **how)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A reader looks at all views over and over meanwhile; what it saw is in `watched`, what it could not in `failures`."""
        over = threading.Event()

        def look() -> None:
            looked_at, at = None, 0.0
            while not over.wait(0.05):
                target = os.path.realpath(self.serving / "almanac.duckdb")
                if target == looked_at and time.monotonic() - at < 2:
                    continue
                looked_at, at = target, time.monotonic()
                self.look()

        reader = threading.Thread(target=look)
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()
            self.look()

    def look(self) -> None:
        """One look of a reader."""
        try:
            with self.looking:
                seen = served(self.home)
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        states = [seen]
        if self.mirrored:
            with suppress(Exception):  # the server may be down: that is the fault
                states.append(self.mirrored())
        self.watched += [state for state in states if state not in self.watched]

"""The system calls by which a run makes its work last, and which of them a fault of `benchmarks.chaos` is to hit."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from benchmarks.chaos_stage import Stage

TRACED = "rename,unlink,symlink,rmdir,mkdir,fsync,fdatasync,ftruncate,pwrite64"
COUNTING = Lock()


def nth_call(stage: Stage, call: str, part: int, parts: int) -> int:
    """The number of a call of the main thread: part 0 of an undisturbed run's calls is the first, the last part its last."""
    calls = counted(stage)[call]
    return 1 + (calls - 1) * part // max(1, parts - 1)


def counted(stage: Stage) -> Counter[str]:
    """How often the main thread of an undisturbed run enters each call; it does so alike in every run."""
    with COUNTING:
        if "calls" not in stage.scene.made:
            running = stage.run(traced=TRACED)
            if running.wait():
                raise RuntimeError(running.text())
            assert running.tracer
            mine = [line.split(None, 1)[1] for line in running.tracer.calls if line.split()[0] == str(running.pid)]
            stage.scene.made["calls"] = Counter(line.partition("(")[0] for line in mine)
            stage.reset()
    return stage.scene.made["calls"]

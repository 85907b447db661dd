"""Processes side by side: dates of a backfill, fits of a backtest, searches of tuning."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import active_children, get_context

LOOK_SECONDS = 2.0


def side_by_side(processes: int) -> ProcessPoolExecutor:
    """So many processes, each started afresh, that end with the one that asked for them, even where it was killed."""
    return ProcessPoolExecutor(
        max_workers=processes,
        mp_context=get_context("spawn"),
        initializer=_end_with,
        initargs=(os.getpid(),),
    )


def stop(pool: ProcessPoolExecutor) -> None:
    """Ends the processes in the middle of what they do; files are written whole or not at all."""
    pool.shutdown(wait=False, cancel_futures=True)
    for child in active_children():
        child.kill()


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""How ingest, validation, staging and graph grow with the rows: seconds of each step and peak memory at three sizes.

Run: python -m benchmarks.scale (Globo.com needs ALMANAC_DATA). Each size runs in a process of its own with DuckDB's default
memory limit. Time grows linearly where seconds per million rows stay the same.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tasks.ingest import land, load
from tasks.shop import FIRST_DATE, write_shop
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.validate import validate_delivery, validate_staging
from tasks.warehouse import MEMORY_LIMIT, connect

SHOP_USERS, SHOP_ITEMS, SHOP_DAYS = (11_200, 33_600, 112_000), 20_000, 1430  # the last makes ten million events
CLICKS = date(2017, 11, 14)  # the day after the last click
SHARES = (4, 2, 1)  # every so many users


def main() -> None:
    """Prints one row per source and size."""
    print(
        f"| source | rows | land | validate | load | stage | graph | s per million | peak memory (limit {MEMORY_LIMIT}) |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for users in SHOP_USERS:
            files = Path(folder, f"shop-{users}")
            files.mkdir()
            rows = write_shop(files, users=users, items=SHOP_ITEMS, days=SHOP_DAYS, seed=7)
            _report("shop", files, FIRST_DATE + timedelta(days=SHOP_DAYS), sum(rows.values()))
        if "ALMANAC_DATA" in os.environ:
            for share in SHARES:
                files = Path(folder, f"globo-{share}")
                files.mkdir()
                _report("globo-news", files, CLICKS, _every(share, files / "clicks.parquet"))


def _every(share: int, path: Path) -> int:
    """Writes the clicks of every so many users; returns how many."""
    whole = Path(os.environ["ALMANAC_DATA"], "globo-news", "clicks.parquet")
    with connect() as memory:
        memory.execute(
            f"copy (from read_parquet($whole) where user_id % {share} = 0) to '{path}' (format parquet)",
            {"whole": str(whole)},
        )
        return memory.execute("select count(*) from read_parquet($path)", {"path": str(path)}).fetchall()[0][0]


def _report(source: str, files: Path, as_of: date, rows: int) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", source, str(files), as_of.isoformat()]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    peak = measured.pop("peak")
    steps = " | ".join(f"{seconds:.1f}" for seconds in measured.values())
    print(f"| {source} | {rows:,} | {steps} | {sum(measured.values()) / rows * 1e6:.1f} | {peak:.2f} GB |", flush=True)


def measure(name: str, files: Path, as_of: date) -> dict[str, float]:
    """Seconds by step and the peak of this process in GB."""
    source = load_source(name)
    seconds: dict[str, float] = dict.fromkeys(("land", "validate", "load", "stage", "graph"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        home, now = Path(folder), datetime.now(UTC)
        for step, act in (
            ("land", lambda: land(home, source, files, as_of)),
            ("validate", lambda: validate_delivery(home, source, as_of, "scale")),
            ("load", lambda: load(home, source, as_of, now, "scale")),
            ("stage", lambda: build_staging(home, source, as_of)),
            ("validate", lambda: validate_staging(home, source, as_of, "scale")),
            ("graph", lambda: build_graph(home, source, as_of)),
        ):
            start = time.monotonic()
            act()
            seconds[step] += time.monotonic() - start
    return seconds | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), date.fromisoformat(sys.argv[3]))))
    else:
        main()

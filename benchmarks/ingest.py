"""Ingest, validate and stage Online Retail II, as multiples of DuckDB's own `create table as select` of the same file.

Run: python -m benchmarks.ingest (needs ALMANAC_DATA). Each round times both in turn; the table shows medians.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from statistics import median

from tasks import ingest, transform, validate
from tasks.sources import load_source
from tasks.warehouse import connect

ROUNDS = 5
AS_OF = date(2011, 8, 8)


def main() -> None:
    """Prints one line per step: seconds, and multiple of the copy."""
    import tasks.expectations  # noqa: F401  # its import is not part of a step

    input_root = Path(os.environ["ALMANAC_DATA"]) / "online-retail-ii"
    source = load_source("online-retail-ii")
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            steps: dict[str, Callable[[], object]] = {
                "copy (create table as select)": lambda home=home: _copy(home, input_root),
                "land": lambda home=home: ingest.land(home, source, input_root, AS_OF),
                "validate": lambda home=home: validate.validate_delivery(home, source, AS_OF, "benchmark"),
                "load": lambda home=home: ingest.load(home, source, AS_OF, datetime(2020, 1, 1), "benchmark"),
                "stage": lambda home=home: transform.build_staging(home, source, AS_OF),
            }
            rounds.append({name: _seconds(step) for name, step in steps.items()})
    print("| step | seconds | multiple of the copy |\n| --- | --- | --- |")
    for name in rounds[0]:
        multiple = median(measured[name] / next(iter(measured.values())) for measured in rounds)
        print(f"| {name} | {median(measured[name] for measured in rounds):.2f} | {multiple:.1f} |")


def _copy(home: Path, input_root: Path) -> None:
    with connect(home / "copy.duckdb") as target:
        target.execute(f"create table copied as from read_parquet('{input_root}/*.parquet')")


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

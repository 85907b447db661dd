"""Ten dates of Online Retail II, trained every day: by daily runs, and by backfills of one and of two processes.

Run: python -m benchmarks.equal_backfill [FIRST DATE] (needs ALMANAC_DATA). The last five months before the first date, and a
smaller network than the product's, so that thirty trainings take minutes. Whatever is published must be equal row for row,
in every bit: lists, similar items, metrics of the holdouts, what the gate decided. The exit code is 1 where anything differs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl

from flows.configuration import BackfillConfig, RunConfig
from flows.terminal import prepare_prefect
from tasks.warehouse import connect

SOURCE, FILE = "online-retail-ii", "online_retail_ii.parquet"
DATES, HISTORY = 10, timedelta(days=150)
SMALL = {"dimension": 16, "epochs": 3, "snapshot_count": 10}
TABLES = {
    "recommendations": "as_of, list, user_id, rank",
    "item_recommendations": "as_of, item_id, rank",
    "metrics": "all",
    "gate": "all",
}


def cut(folder: Path, first: date) -> Path:
    """The events from five months before the dates to their end."""
    folder.mkdir()
    begin = datetime.combine(first - HISTORY, datetime.min.time())
    rows = pl.read_parquet(Path(os.environ["ALMANAC_DATA"], SOURCE, FILE))
    within = pl.col("InvoiceDate").is_between(begin, begin + HISTORY + timedelta(days=DATES))
    rows.filter(within).write_parquet(folder / FILE)
    return folder


def published(home: Path) -> dict[str, pl.DataFrame]:
    """What the home publishes, without the names of its runs."""
    with connect(home / "warehouse.duckdb", read_only=True) as warehouse:
        return {
            table: warehouse.sql(
                f"select * exclude (run_id) from mart.{table} semi join mart.publications using (as_of, run_id)"
                f" order by {order}"
            ).pl()
            for table, order in TABLES.items()
        }


def main(first: date) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = cut(root / "input", first)
        prepare_prefect(root, verbose=False)
        from flows.backfill import backfill
        from flows.daily import daily

        given = {"source": SOURCE, "input": files, "model": SMALL}
        dates = [first + timedelta(days=ahead) for ahead in range(DATES)]

        def day_by_day(home: Path) -> None:
            for as_of in dates:
                daily(RunConfig(home=home, as_of=as_of, **given))  # pyright: ignore[reportArgumentType]

        def at_once(home: Path, jobs: int) -> None:
            backfill(BackfillConfig(home=home, first=dates[0], last=dates[-1], jobs=jobs, **given))  # pyright: ignore

        ways = {
            "daily runs": day_by_day,
            "backfill, one process": lambda home: at_once(home, 1),
            "backfill, two processes": lambda home: at_once(home, 2),
        }
        print(f"| {DATES} dates from {first} | seconds | {' | '.join(TABLES)} |")
        print("| --- " * (2 + len(TABLES)) + "|")
        expected, equal = {}, True
        for number, (name, run) in enumerate(ways.items()):
            start = time.monotonic()
            run(root / f"home{number}")
            seconds, found = time.monotonic() - start, published(root / f"home{number}")
            expected = expected or found
            same = {table: rows.equals(expected[table]) for table, rows in found.items()}
            told = [f"{len(found[table]):,} rows, {'equal' if same[table] else 'NOT EQUAL'}" for table in TABLES]
            print(f"| {name} | {seconds:,.0f} | {' | '.join(told)} |", flush=True)
            equal = equal and all(same.values())
    raise SystemExit(not equal)


if __name__ == "__main__":
    main(date.fromisoformat(sys.argv[1]) if sys.argv[1:] else date(2011, 8, 1))

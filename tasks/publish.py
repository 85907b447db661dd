"""Makes audited lists the published ones: warehouse history, then what readers open."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.serving import build_serving_file, prune, swap, write_parquet
from tasks.sources import Source
from tasks.warehouse import exists, open_warehouse, replace_partition, transaction

PUBLISHED = ("recommendations", "item_recommendations", "metrics", "gate")


def publish(home: Path, source: Source, as_of: date, run_id: str, history_days: int) -> dict[str, int]:
    """Makes the audited lists the published ones of `as_of`; returns rows published by list.

    A reader sees the old version until the symlink `serving/almanac.duckdb` moves, then the new one; never a part.
    """
    with open_warehouse(home) as warehouse:
        _preview(warehouse, as_of, run_id)
        file = build_serving_file(warehouse, home, as_of, run_id, history_days)
        with transaction(warehouse):
            for table in PUBLISHED:
                rows = f"select * from next_{table} where as_of = date '{as_of}' order by all"
                replace_partition(warehouse, f"mart.{table}", rows, as_of=as_of)
        write_parquet(warehouse, home, as_of)
        per_list = (
            "select list, count(*) from mart.recommendations where as_of = $as_of group by list order by list desc"
        )
        counts = warehouse.execute(per_list, {"as_of": as_of}).fetchall()
    swap(file)
    prune(home / "serving")
    return dict(counts)


def _preview(warehouse: DuckDBPyConnection, as_of: date, run_id: str) -> None:
    """Temporary views `next_<table>`: what `mart.<table>` will hold once the scored rows of `as_of` are published."""
    for table in PUBLISHED:
        rows = f"select * replace ('{run_id}' as run_id) from scored.{table} where as_of = date '{as_of}'"
        if exists(warehouse, f"mart.{table}"):
            rows += f" union all by name select * from mart.{table} where as_of != date '{as_of}'"
        warehouse.execute(f"create or replace temp view next_{table} as {rows}")

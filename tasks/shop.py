"""The synthetic shop as files: runs the SELECTs in sql/sources/shop/generate, which plant and state its right answers."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.warehouse import SQL, connect, read_select, set_variables

GENERATE = SQL / "sources/shop/generate"
PLANTED = ("planted_items", "planted_users")
DELIVERED = ("users", "items", "facts", "links", "interactions")


def write_shop(
    folder: Path,
    *,
    users: int = 2_000,
    items: int = 600,
    days: int = 1_430,
    seed: int = 7,
    first_date: date = date(2021, 1, 1),
) -> dict[str, int]:
    """Writes `<table>.parquet` for every table the shop delivers into `folder`; returns the rows of each file.

    The period has `days` days from `first_date`; the first `as_of` after all of it is `first_date + days` (2024-12-01 by
    default). Equal arguments give equal files, byte for byte; a file appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    with connect(temp_directory=folder / ".spill") as shop:
        plant_shop(shop, users=users, items=items, days=days, seed=seed, first_date=first_date)
        for table in DELIVERED:
            unfinished = folder / f".{table}.parquet.tmp"
            query = read_select(GENERATE / f"{table}.sql", shop)
            rows[table] = shop.execute(f"copy ({query}) to $path (format parquet)", {"path": str(unfinished)}).fetchone()[0]
            unfinished.replace(folder / f"{table}.parquet")
    return rows


def plant_shop(shop: DuckDBPyConnection, **parameters: int | date) -> None:
    """Sets the parameters of `write_shop` on a connection and builds the tables of planted truth that all else is made from."""
    shop.execute("set threads = 1")  # the order of rows within a file would vary with more, and time would not
    set_variables(shop, **parameters)
    for table in PLANTED:
        shop.execute(f"create temp table {table} as {read_select(GENERATE / f'{table}.sql', shop)}")

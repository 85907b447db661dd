"""The synthetic shop as files: runs the SELECTs of sql/shop, which state what they plant."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.warehouse import SQL, connect, read_select, scalar, set_variables

GENERATE = SQL / "shop"
PLANTED = ("planted_items", "planted_users")
FIRST_DATE = date(2021, 1, 1)
DELIVERED = ("users", "items", "facts", "links", "interactions")


def write_shop(
    folder: Path,
    *,
    users: int = 2_000,
    items: int = 600,
    days: int = 1_430,
    seed: int = 7,
    first_date: date = FIRST_DATE,
) -> dict[str, int]:
    """Writes `<table>.parquet` for every table the shop delivers into `folder`; returns the rows of each file.

    The period has `days` days from `first_date`; the first `as_of` after it is `first_date + days` (2024-12-01).
    Equal arguments give equal files, byte for byte; a file appears whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    with connect(temp_directory=folder / ".spill") as shop:
        plant_shop(shop, users=users, items=items, days=days, seed=seed, first_date=first_date)
        for table in DELIVERED:
            unfinished = folder / f".{table}.parquet.tmp"
            query = read_select(GENERATE / f"{table}.sql", shop)
            rows[table] = scalar(shop, f"copy ({query}) to $path (format parquet)", path=str(unfinished))
            unfinished.replace(folder / f"{table}.parquet")
    return rows


def plant_shop(shop: DuckDBPyConnection, **parameters: int | date) -> None:
    """Builds the planted truth, from which all else is made, for parameters named as in `write_shop`."""
    shop.execute("set threads = 1")  # more would vary the order of rows within a file and save no time
    set_variables(shop, **parameters)
    for table in PLANTED:
        shop.execute(f"create temp table {table} as {read_select(GENERATE / f'{table}.sql', shop)}")

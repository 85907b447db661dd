"""A synthetic shop on disk, and the answers planted in it: what a right result must show."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from tasks.shop import plant_shop, write_shop
from tasks.sources import load_source
from tasks.warehouse import connect, read_select, restrict

FIRST_DATE = date(2021, 1, 1)
SHOP: dict[str, Any] = {"users": 2_000, "items": 600, "days": 1_430, "seed": 7, "first_date": FIRST_DATE}
SMALL_SHOP: dict[str, Any] = SHOP | {"users": 300, "items": 120}
HALF_LIFE_DAYS = {"view": 3, "cart": 10, "purchase": 45}
REPEATS_PER_EVENT = {"view": 0.35, "cart": 0.25, "purchase": 0.45}


def write_world(folder: Path, **changes: Any) -> dict[str, int]:
    """Writes the small shop, or one with other parameters, into a folder; returns the rows of each file."""
    parameters: dict[str, Any] = SMALL_SHOP | changes
    return write_shop(folder, **parameters)


def end_date(**parameters: Any) -> date:
    """The first `as_of` after all events of a shop with these parameters."""
    return parameters["first_date"] + timedelta(days=parameters["days"])


def planted(table: str, **parameters: Any) -> pl.DataFrame:
    """The planted truth: `items` (season, category, brand, company, …) or `users` (taste, second taste, company, …)."""
    with connect() as shop:
        plant_shop(shop, **parameters)
        return shop.sql(f"from planted_{table}").pl()


def adapted(table: str, folder: Path) -> pl.DataFrame:
    """What the shop's adapter makes of a file, on the connection that the ingest uses."""
    with connect() as adapter:
        restrict(adapter, folder)
        return adapter.sql(read_select(load_source("shop").every_select[table][0], adapter)).pl()


def known_events(folder: Path) -> pl.DataFrame:
    """The log's rows that have a user and an item, with the proposal and path of their event_id as integers."""
    steps = pl.col("event_id").str.strip_prefix("e").str.split(".").cast(pl.List(pl.Int64))
    return (
        pl.read_parquet(folder / "interactions.parquet")
        .drop_nulls(["user_id", "item_id"])
        .with_columns(steps.list.get(0).alias("proposal"), steps.list.get(1).alias("path"))
    )

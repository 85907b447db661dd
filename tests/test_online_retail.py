"""Online Retail II as published: its quirks, counted independently of the pipeline."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.validate import validate_delivery, validate_staging
from tasks.warehouse import open_warehouse

AS_OF = date(2011, 8, 8)


@pytest.fixture(scope="module")
def files(real_data: Path) -> Path:
    return real_data / "online-retail-ii"


@pytest.fixture(scope="module")
def lines(files: Path) -> pl.DataFrame:
    """The file's lines before the date, as polars reads them."""
    frame = pl.concat(pl.read_parquet(file) for file in sorted(files.glob("*.parquet")))
    return frame.filter(pl.col("InvoiceDate").dt.date() < AS_OF).with_columns(
        code=pl.col("StockCode").str.strip_chars().str.to_uppercase()
    )


@pytest.fixture(scope="module")
def sales(lines: pl.DataFrame) -> pl.DataFrame:
    """Lines that are purchases of a product by a known customer."""
    return lines.filter(
        pl.col("Customer ID").is_not_null()
        & ~pl.col("Invoice").str.starts_with("C")
        & ~pl.col("Invoice").str.starts_with("A")
        & (pl.col("Quantity") > 0)
        & pl.col("code").str.contains(r"^\d{5}")
    )


@pytest.fixture(scope="module")
def home(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("retail") / "home"
    home.mkdir()
    source = load_source("online-retail-ii")
    land(home, source, files, AS_OF)
    validate_delivery(home, source, AS_OF, "run")
    load(home, source, AS_OF, datetime(2024, 1, 1), "run")
    build_staging(home, source, AS_OF)
    validate_staging(home, source, AS_OF, "run")
    build_graph(home, source, AS_OF)
    return home


def value(home: Path, query: str) -> object:
    with open_warehouse(home) as warehouse:
        return warehouse.execute(query).fetchall()[0][0]


def test_every_line_is_accounted_for(home: Path, files: Path, lines: pl.DataFrame, sales: pl.DataFrame) -> None:
    with open_warehouse(home) as warehouse:
        counted = (
            "select fate, sum(row_count)::bigint from mart.accounting where table_name = 'interactions' group by fate"
        )
        fates = dict(warehouse.execute(counted).fetchall())
    assert fates["loaded"] == len(sales)
    assert fates["excluded"] == len(lines) - len(sales)
    read = sum(len(pl.read_parquet(file, columns=["Invoice"])) for file in files.glob("*.parquet"))
    assert fates["deferred"] == read - len(lines)
    assert sum(fates.values()) == read


def test_the_first_rule_that_fits_excludes_a_line(home: Path, lines: pl.DataFrame) -> None:
    rules = "select count(*) from raw.interactions where excluded_because = "
    assert value(home, f"{rules} 'no customer'") == lines["Customer ID"].null_count()
    known = lines.filter(pl.col("Customer ID").is_not_null())
    assert value(home, f"{rules} 'cancellation'") == known["Invoice"].str.starts_with("C").sum()


def test_customer_ids_are_integers_as_text_and_items_start_with_five_digits(home: Path, sales: pl.DataFrame) -> None:
    assert value(home, "select count(*) from staging.users where not regexp_full_match(user_id, '[0-9]{5}')") == 0
    assert value(home, "select count(*) from staging.items where not regexp_matches(item_id, '^[0-9]{5}')") == 0
    assert value(home, "select count(*) from staging.interactions where user_id = '13085'") == len(
        sales.filter(pl.col("Customer ID") == 13085).unique(["code", "InvoiceDate"])
    )


def test_codes_that_differ_by_case_are_one_item(home: Path, lines: pl.DataFrame) -> None:
    codes = value(home, "select count(distinct item_id) from raw.interactions")
    assert codes == lines["code"].n_unique() < lines["StockCode"].str.strip_chars().n_unique()


def test_lines_delivered_twice_count_once(home: Path, sales: pl.DataFrame) -> None:
    """The two yearly sheets overlap in December 2010."""
    twice = sales.height - sales.unique(["Customer ID", "code", "InvoiceDate"]).height
    assert twice > 10_000
    assert value(home, "select sum(duplicate_count - 1)::bigint from staging.interactions") == twice


def test_an_edge_is_a_user_an_item_and_a_day(home: Path, sales: pl.DataFrame) -> None:
    pairs = sales.select("Customer ID", "code", pl.col("InvoiceDate").dt.date()).unique()
    assert value(home, "select count(*) from graph.interaction_edges") == pairs.height
    assert value(home, "select min(age_days) from graph.interaction_edges") >= 1  # pyright: ignore


def test_a_customer_id_with_a_decimal_part_is_the_same_customer(files: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(sorted(files.glob("*.parquet"))[0]).head(2000)
    for name, customers in (("whole", pl.col("Customer ID")), ("decimal", pl.col("Customer ID").cast(pl.Float64))):
        (tmp_path / name / "home").mkdir(parents=True)
        (tmp_path / name / "files").mkdir()
        text = customers.cast(pl.String)
        frame.with_columns(text.alias("Customer ID")).write_parquet(tmp_path / name / "files/sales.parquet")
        source = load_source("online-retail-ii")
        land(tmp_path / name / "home", source, tmp_path / name / "files", AS_OF)
        load(tmp_path / name / "home", source, AS_OF, datetime(2024, 1, 1), "run")
    users = "select string_agg(distinct user_id, ' ' order by user_id) from raw.interactions"
    whole, decimal = value(tmp_path / "whole/home", users), value(tmp_path / "decimal/home", users)
    assert whole == decimal and "13085" in str(whole) and "." not in str(whole)

"""Clicks of Globo.com as published, one of every sixty."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from tasks.transform import build_staging
from tests.shipped_source import shipped_source
from tests.tiny_source import TinySource

AS_OF = date(2017, 10, 10)
CONTEXT = ["environment", "deviceGroup", "os", "country", "region", "referrer_type"]
FIRST_CLICK = {
    "user_id": 59,
    "session_id": 1506826329267796,
    "session_start": 1506826329000,
    "session_size": 2,
    "click_article_id": 234853,
    "click_timestamp": 1506826801702,
} | {f"click_{name}": 1 for name in CONTEXT}
BROKEN = [
    {"user_id": None},
    {"user_id": "-1"},
    {"user_id": "59x"},
    {"user_id": " 59"},
    {"user_id": "59.5"},
    {"user_id": "1506826801702"},
    {"click_article_id": ""},
    {"click_article_id": "9" * 300},
    {"click_timestamp": None},
    {"click_timestamp": "yesterday"},
    {"click_timestamp": "nan"},
    {"click_timestamp": "1506826801"},
    {"click_timestamp": "253370764800000"},
    {"click_timestamp": "-62135596800000"},
    {"session_id": None},
    {"session_size": "many"},
    {"click_os": "-1"},
    {"click_region": "inf"},
]


@pytest.fixture(scope="module")
def clicks(real_data: Path) -> pl.DataFrame:
    """Every sixtieth click, with its local time."""
    local = pl.from_epoch("click_timestamp", time_unit="ms").dt.convert_time_zone("America/Sao_Paulo")
    frame = pl.read_parquet(real_data / "globo-news" / "clicks.parquet")
    assert len(frame) == 2_988_181
    return frame.gather_every(60).with_columns(local=local, event_date=local.dt.date())


def delivered(root: Path, clicks: pl.DataFrame) -> TinySource:
    source = shipped_source(root, "globo-news")
    clicks.drop("local", "event_date", strict=False).write_parquet(source.input / "clicks.parquet")
    return source


@pytest.fixture(scope="module")
def globo(clicks: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> TinySource:
    """The clicks, staged as of AS_OF."""
    source = delivered(tmp_path_factory.mktemp("globo"), clicks)
    source.stage(AS_OF)
    return source


def test_every_click_is_loaded_or_deferred_by_its_local_day(globo: TinySource, clicks: pl.DataFrame) -> None:
    fates = "select fate, sum(row_count)::bigint from mart.accounting where table_name = 'interactions' group by fate"
    before = clicks.filter(pl.col("event_date") < AS_OF).height
    assert dict(globo.rows(fates)) == {"loaded": before, "deferred": clicks.height - before}
    days = "select event_date, count(*) from raw.interactions group by 1 order by 1"
    assert (
        globo.rows(days)
        == clicks.filter(pl.col("event_date") < AS_OF).group_by("event_date").len().sort("event_date").rows()
    )


def test_a_click_as_a_row(tmp_path: Path) -> None:
    source = delivered(tmp_path, pl.DataFrame([FIRST_CLICK]))
    source.ingest(AS_OF)
    click = "select * exclude (excluded_because, loaded_at, superseded_at) from raw.interactions"
    at = datetime(2017, 10, 1, 3, 0, 1, 702_000)
    context = (1506826329267796, 2, 1, 1, 1, 1, 1, 1)
    assert source.rows(click) == [("59", "234853", "click", at, date(2017, 10, 1), None, "clicks.parquet", 0, *context)]


def test_the_day_of_a_click_is_that_of_sao_paulo_in_winter_and_in_summer_time(tmp_path: Path) -> None:
    moments = {  # clocks went forward at midnight on 2017-10-15
        datetime(2017, 10, 14, 2, 59, 59): date(2017, 10, 13),
        datetime(2017, 10, 14, 3, 0): date(2017, 10, 14),
        datetime(2017, 10, 16, 1, 59, 59): date(2017, 10, 15),
        datetime(2017, 10, 16, 2, 0): date(2017, 10, 16),
    }
    stamps = [int(moment.replace(tzinfo=ZoneInfo("UTC")).timestamp()) * 1000 for moment in moments]
    source = delivered(tmp_path, pl.DataFrame([FIRST_CLICK | {"click_timestamp": stamp} for stamp in stamps]))
    source.ingest(date(2018, 1, 1))
    assert source.rows("select occurred_at, event_date from raw.interactions order by 1") == list(moments.items())


def test_a_reader_has_the_context_of_the_last_click_from_the_day_it_changed(
    globo: TinySource, clicks: pl.DataFrame
) -> None:
    columns = [f"click_{name}" for name in CONTEXT]
    last = (
        clicks.sort("click_timestamp")
        .group_by("user_id", "event_date", maintain_order=True)
        .last()
        .sort("user_id", "event_date")
        .select(pl.col("user_id").cast(pl.String), "event_date", *(pl.col(name).cast(pl.String) for name in columns))
    )
    changed = last.filter(pl.struct(columns).ne_missing(pl.struct(columns).shift(1).over("user_id"))).filter(
        pl.col("event_date") < AS_OF
    )
    versions = "select user_id, valid_from, environment, device, os, country, region, referrer from raw.users"
    assert sorted(globo.rows(versions)) == sorted(changed.rows())
    several = changed.group_by("user_id").len().filter(pl.col("len") > 1)["user_id"][0]
    first, second = changed.filter(pl.col("user_id") == several).sort("event_date").rows()[:2]
    for as_of, version in ((second[1], first), (AS_OF, changed.filter(pl.col("user_id") == several).rows()[-1])):
        build_staging(globo.home, globo.source, as_of)
        staged = (
            f"select environment, device, os, country, region, referrer from staging.users where user_id = '{several}'"
        )
        assert globo.rows(staged) == [version[2:]]


def test_the_segment_of_a_reader_is_the_region(globo: TinySource) -> None:
    wrong = (
        "select count(*) from graph.user_nodes join staging.users using (user_id) where segment is distinct from region"
    )
    assert globo.rows(wrong) == [(0,)]


def test_broken_clicks_and_no_others_are_quarantined(clicks: pl.DataFrame, tmp_path: Path) -> None:
    whole = clicks.drop("local", "event_date").cast(pl.String)
    broken = pl.DataFrame([{name: str(value) for name, value in FIRST_CLICK.items()} | change for change in BROKEN])
    source = delivered(tmp_path, pl.concat([whole, broken]))
    source.ingest(date(2018, 1, 1))
    rows = "select source_row from quarantine.rows where table_name = 'interactions' order by 1"
    assert source.rows(rows) == [(clicks.height + index,) for index in range(len(BROKEN))]
    assert source.rows("select count(*) from raw.interactions") == [(clicks.height,)]
    read = "select sum(row_count)::bigint from mart.accounting where table_name = 'interactions'"
    assert source.rows(read) == [(clicks.height + len(BROKEN),)]
    assert source.rows("select count(*) from raw.users where user_id is null or contains(user_id, ' ')") == [(0,)]

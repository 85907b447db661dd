"""The synthetic shop shows what its SQL says it plants."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tasks.shop import DELIVERED
from tasks.sources import CONTRACTS, PROVENANCE
from tests.world import (
    FIRST_DATE,
    HALF_LIFE_DAYS,
    REPEATS_PER_EVENT,
    SHOP,
    adapted,
    end_date,
    known_events,
    planted,
    write_world,
)

END_DATE = end_date(**SHOP)
EVENT_TYPES = sorted(HALF_LIFE_DAYS)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_world(folder, **SHOP)
    return folder


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    return planted("items", **SHOP)


@pytest.fixture(scope="module")
def users() -> pl.DataFrame:
    return planted("users", **SHOP)


@pytest.fixture(scope="module")
def events(shop: Path, items: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """Known events with the truth about their user (company_index_right, …) and item."""
    return known_events(shop).join(items, on="item_id").join(users, on="user_id")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        rows = write_world(tmp_path / name, days=200, seed=seed)
    assert content(tmp_path / "first") == content(tmp_path / "again")
    assert sorted(content(tmp_path / "first")) == sorted(f"{table}.parquet" for table in rows)
    first, other = content(tmp_path / "first"), content(tmp_path / "other")
    assert all(first[name] != other[name] for name in first)


def test_a_shop_of_any_size_has_unique_ids_and_whole_references(tmp_path: Path) -> None:
    for number, size in enumerate([{"users": 3, "items": 5, "days": 20}, {"users": 37, "items": 100, "days": 400}]):
        write_world(tmp_path / str(number), **size)
        tables = {table: pl.read_parquet(tmp_path / str(number) / f"{table}.parquet") for table in DELIVERED}
        assert tables["users"]["user_id"].is_unique().all() and len(tables["users"]) == size["users"]
        assert tables["items"]["item_id"].is_unique().all() and len(tables["items"]) == size["items"]
        assert tables["interactions"]["event_id"].is_unique().all()
        assert set(tables["interactions"]["user_id"].drop_nulls()) <= set(tables["users"]["user_id"])
        assert set(tables["interactions"]["item_id"].drop_nulls()) <= set(tables["items"]["item_id"])
        assert set(tables["links"]["user_id"]) <= set(tables["users"]["user_id"])
        assert set(tables["links"]["other_user_id"]) <= set(tables["users"]["user_id"])


def test_events_lie_within_the_period_and_the_lives_of_user_and_item(events: pl.DataFrame) -> None:
    day = pl.col("occurred_at").dt.date()
    outside = events.filter(
        (day < FIRST_DATE)
        | (day >= END_DATE)
        | (day < pl.col("signup_date"))
        | (day < pl.col("launch_date"))
        | (day >= pl.col("retired_date"))
    )
    assert outside.is_empty()


def test_some_items_retire_and_some_are_launched_within_the_period(items: pl.DataFrame) -> None:
    retired = items.filter(pl.col("retired_date").is_not_null())
    assert 0.06 < len(retired) / len(items) < 0.14
    first_sold = pl.max_horizontal("launch_date", pl.lit(FIRST_DATE))
    assert retired.filter(pl.col("retired_date") < first_sold + pl.duration(days=60)).is_empty()
    assert retired["retired_date"].max() < END_DATE
    assert 0.25 < (items["launch_date"] >= FIRST_DATE).mean() < 0.35


def test_a_weekend_day_has_five_thirds_of_a_weekdays_exploring_events(events: pl.DataFrame) -> None:
    exploring = events.filter(pl.col("path") == 0)
    weekend_share = (exploring["occurred_at"].dt.weekday() >= 6).mean()
    assert weekend_share == pytest.approx(2 / (2 + 5 * 0.6), abs=0.01)


def test_items_sell_in_their_season(events: pl.DataFrame) -> None:
    month = pl.col("occurred_at").dt.month()
    shares = {
        season: (
            of_season.select(month.is_in([12, 1, 2]).mean()).item(),
            of_season.select(month.is_in([6, 7, 8]).mean()).item(),
            of_season.select((month == 12).mean()).item(),
        )
        for (season,), of_season in events.filter(pl.col("path") == 0).group_by("season")
    }
    winter, summer, december = shares["winter"]
    assert winter > 0.6 and summer < 0.05
    winter, summer, december = shares["summer"]
    assert winter < 0.05 and summer > 0.6
    winter, summer, december = shares["christmas"]
    assert december > 0.5 and summer < 0.15
    winter, summer, december = shares["none"]
    assert winter == pytest.approx(0.25, abs=0.06) and summer == pytest.approx(0.25, abs=0.06)


@pytest.fixture(scope="module")
def families(events: pl.DataFrame) -> pl.DataFrame:
    """Parents old enough to have seen all their repeats, with the delays of these; of items that never retire."""
    whole_life = events.filter(pl.col("retired_date").is_null())
    oldest = pl.col("event_type").replace_strict(HALF_LIFE_DAYS, return_dtype=pl.Int64) * 9
    parents = whole_life.filter(pl.col("occurred_at").dt.date() < pl.lit(END_DATE) - pl.duration(days=oldest))
    repeats = whole_life.filter(pl.col("path") > 0).with_columns(pl.col("path") // 4)
    delays = parents.join(repeats, on=["proposal", "path"], how="left", suffix="_of_repeat")
    delay_days = (pl.col("occurred_at_of_repeat") - pl.col("occurred_at")).dt.total_seconds(fractional=True) / 86_400
    return delays.select("event_id", "event_type", "event_type_of_repeat", delay_days.alias("delay_days"))


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_repeats_come_with_the_planted_half_life_and_number(families: pl.DataFrame, event_type: str) -> None:
    of_type = families.filter(pl.col("event_type") == event_type)
    delays = of_type["delay_days"].drop_nulls()
    assert set(of_type["event_type_of_repeat"].drop_nulls()) == {event_type}
    for share in (0.25, 0.5, 0.75):  # quantiles of an exponential: -h log2(1 - share)
        assert delays.quantile(share) == pytest.approx(-HALF_LIFE_DAYS[event_type] * math.log2(1 - share), rel=0.1)
    assert len(delays) / of_type["event_id"].n_unique() == pytest.approx(REPEATS_PER_EVENT[event_type], rel=0.1)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_planted_half_life_predicts_the_next_day_best(events: pl.DataFrame, event_type: str) -> None:
    """From user, item and time alone; a count of all past events beside it stands for the pair's exploring events."""
    of_type = events.filter(pl.col("event_type") == event_type).select("user_id", "item_id", "occurred_at")
    likelihood = {factor: sum_log_likelihood(of_type, HALF_LIFE_DAYS[event_type] * factor) for factor in (1 / 3, 1, 3)}
    assert max(likelihood, key=likelihood.get) == 1


def sum_log_likelihood(events: pl.DataFrame, half_life_days: float) -> float:
    """Of Poisson counts of a pair's events of the next day, rate a + b Σ 2^(-age/h) + c·(its events a day so far)."""
    age_days = (pl.col("as_of") - pl.col("occurred_at")).dt.total_seconds(fractional=True) / 86_400
    dates = pl.datetime_range(date(2022, 7, 1), date(2024, 11, 20), "23d", eager=True).alias("as_of")
    pairs = pl.concat(
        events.with_columns(pl.lit(as_of).alias("as_of"))
        .filter(age_days > -1)
        .group_by("user_id", "item_id", "as_of", maintain_order=True)
        .agg(
            (age_days < 0).sum().alias("next_count"),
            pl.when(age_days >= 0).then(0.5 ** (age_days / half_life_days)).sum().alias("decayed"),
            ((age_days >= 0).sum() / (pl.col("as_of").first() - FIRST_DATE).dt.total_days()).alias("daily"),
        )
        .filter(pl.col("daily") > 0)
        for as_of in dates
    )
    count = pairs["next_count"].to_numpy()
    features = np.stack([np.ones(len(pairs)), pairs["decayed"].to_numpy(), pairs["daily"].to_numpy()])
    weights = np.array([1e-4, 1e-2, 1e-1])
    for _ in range(60):  # expectation maximisation: every event is owed to one of the three terms
        weights *= (features * (count / (weights @ features))).sum(axis=1) / features.sum(axis=1)
    rate = weights @ features
    return float((count * np.log(rate) - rate).sum())


def test_three_quarters_of_the_proposals_follow_the_users_taste(events: pl.DataFrame) -> None:
    """Seen where nothing thins by season: of three such categories a user with one such taste favours its own."""
    plain = [0, 9, 11]
    of_plain = events.filter(
        (pl.col("path") == 0)
        & pl.col("second_taste_index").is_null()
        & pl.col("taste_index").is_in(plain)
        & pl.col("category_index").is_in(plain)
    )
    own_share = 0.75 + 0.25 / 12
    own = (of_plain["category_index"] == of_plain["taste_index"]).mean()
    assert own == pytest.approx(own_share / (own_share + 2 * 0.25 / 12), abs=0.015)


def test_users_who_change_taste_leave_the_first_for_the_second(events: pl.DataFrame) -> None:
    changing = events.filter((pl.col("path") == 0) & pl.col("taste_change_date").is_not_null())
    is_before = changing["occurred_at"].dt.date() < changing["taste_change_date"]
    for part, loved, other in (
        (changing.filter(is_before), "taste_index", "second_taste_index"),
        (changing.filter(~is_before), "second_taste_index", "taste_index"),
    ):
        assert (part["category_index"] == part[loved]).mean() > 0.7
        assert (part["category_index"] == part[other]).mean() < 0.05


def test_users_see_items_of_their_favourite_company_twice_as_often(events: pl.DataFrame) -> None:
    is_favourite = events["company_index"] == events["company_index_right"]
    assert is_favourite.mean() == pytest.approx(2 / (2 + 5), abs=0.04)


def test_facts_tell_the_category_of_an_item(shop: Path, items: pl.DataFrame) -> None:
    facts = pl.read_parquet(shop / "facts.parquet")
    made_of = facts.filter(pl.col("relation") == "made_of").join(items, left_on="subject", right_on="item_id")
    mode = made_of.group_by("object").agg(pl.col("category_index").mode().first().alias("usual_index"))
    made_of = made_of.join(mode, on="object")
    assert (made_of["category_index"] == made_of["usual_index"]).mean() > 0.8
    made_by = facts.filter(pl.col("relation") == "made_by").select("subject", brand="object")
    owned_by = facts.filter(pl.col("relation") == "owned_by").select(brand="subject", owner="object")
    owners = made_by.join(owned_by, on="brand").join(items, left_on="subject", right_on="item_id")
    assert len(owners) == len(items) and (owners["owner"] == owners["company"]).all()


def test_four_of_five_friends_share_their_first_taste(shop: Path, users: pl.DataFrame) -> None:
    links = pl.read_parquet(shop / "links.parquet")
    taste = users.select("user_id", "taste_index")
    pairs = links.join(taste, on="user_id").join(taste, left_on="other_user_id", right_on="user_id")
    assert len(pairs) == len(links) and (links["user_id"] < links["other_user_id"]).all()
    assert not links.select("user_id", "other_user_id").is_duplicated().any()
    assert (pairs["taste_index"] == pairs["taste_index_right"]).mean() == pytest.approx(0.8 + 0.2 / 12, abs=0.03)


def test_there_are_cold_users_and_cold_items(shop: Path, items: pl.DataFrame, users: pl.DataFrame) -> None:
    events = known_events(shop)
    of_user = users.join(events.group_by("user_id").len("events"), on="user_id", how="left").fill_null(0)
    assert of_user.filter("is_silent").select(pl.len(), pl.col("events").sum()).row(0) == (40, 0)
    assert of_user.filter("is_cold")["events"].median() == 0 and of_user.filter("is_cold")["events"].sum() > 0
    of_item = items.join(events.group_by("item_id").len("events"), on="item_id", how="left").with_columns(
        pl.col("events").fill_null(0)
    )
    cold = of_item.filter("is_cold")
    assert (cold["events"] == 0).any() and (cold["events"] > 0).any()
    catalogue = pl.read_parquet(shop / "items.parquet").join(items, on="item_id")
    assert (catalogue["category"].is_null() == catalogue["is_uncatalogued"]).all()
    assert 0 < catalogue["is_uncatalogued"].sum() < len(cold)


def test_activity_and_popularity_have_long_tails(events: pl.DataFrame) -> None:
    for entity, busiest_share in (("user_id", 0.4), ("item_id", 0.4)):
        counts = events.group_by(entity).len()["len"].sort(descending=True)
        assert counts.head(len(counts) // 10).sum() / counts.sum() > busiest_share
        assert counts.max() > 20 * counts.median()


@pytest.mark.parametrize("table", DELIVERED)
def test_adapter_gives_one_row_per_row_of_the_file_with_the_columns_of_the_contract(shop: Path, table: str) -> None:
    delivered, rows = pl.read_parquet(shop / f"{table}.parquet"), adapted(table, shop)
    contract = list(CONTRACTS[table]) + [column for column in PROVENANCE if column in rows.columns]
    assert [column for column in rows.columns if column in contract] == contract
    assert rows["source_row"].sort().to_list() == list(range(len(delivered)))
    assert set(rows["source_file"]) == {f"{table}.parquet"}


def test_adapter_excludes_visitors_and_keeps_broken_rows_as_text(shop: Path) -> None:
    rows = adapted("interactions", shop)
    assert (rows["user_id"].is_null() == (rows["excluded_because"] == "not signed in").fill_null(False)).all()
    assert (rows["item_id"].is_null() == rows["raw_text"].is_not_null()).all()
    assert rows["user_id"].is_null().mean() == pytest.approx(0.005, rel=0.2)
    assert 0 < rows["raw_text"].is_not_null().sum() < 0.001 * len(rows)
    assert (rows["event_date"] == rows["occurred_at"].dt.date()).all()


def test_a_second_delivery_is_read_beside_the_first(shop: Path, tmp_path: Path) -> None:
    log = pl.read_parquet(shop / "interactions.parquet").head(10)
    for name in ("interactions-1.parquet", "interactions-2.parquet"):
        log.write_parquet(tmp_path / name)
    rows = adapted("interactions", tmp_path)
    assert rows.group_by("source_file").len().sort("source_file").rows() == [
        ("interactions-1.parquet", 10),
        ("interactions-2.parquet", 10),
    ]

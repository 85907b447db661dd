"""A backtest sees what a daily run would see, measures what happened next, and goes on where it was interrupted."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from models.contenders import fitted
from models.lists import lists
from models.settings import ModelSettings
from tasks.backtest import prepare_origins, read_origin
from tasks.errors import UsageError
from tasks.sources import load_source
from tasks.warehouse import open_warehouse
from tests.conftest import Published
from tests.test_daily import command

SMALL = {"dimension": 16, "epochs": 2, "snapshot_count": 20}
MODELS = (
    "almanac",
    "repeat_trend",
    "ease",
    "decayed_popularity",
    "almanac without decay",
    "almanac with times shuffled",
)
BACK_DAYS = (28, 14)


def backtest(files: Path, home: Path, origins: tuple[date, ...], **options: Any) -> dict[str, Any]:
    from flows.backtest import rolling
    from flows.configuration import BacktestConfig

    given = {"models": MODELS, "model": SMALL, "horizons": (7, 14), "tune": False, "processes": 2, **options}
    return rolling(BacktestConfig(source="shop", input=files, home=home, origins=origins, **given))  # pyright: ignore


def rows(home: Path, query: str, **parameters: object) -> pl.DataFrame:
    with open_warehouse(home) as warehouse:
        return warehouse.sql(query, params=parameters or None).pl()


@pytest.fixture(scope="module")
def origins(published: Published) -> tuple[date, ...]:
    return tuple(published.as_of - timedelta(days=days) for days in BACK_DAYS)


@pytest.fixture(scope="module")
def done(published: Published, origins: tuple[date, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("backtest") / "home"
    return backtest(published.files, home, origins) | {"home": home}


def test_every_model_is_measured_at_every_origin_and_horizon_on_the_same_users(done: dict[str, Any]) -> None:
    measured = rows(done["home"], "from mart.backtests where stratum = 'all' and metric = 'ndcg' and k = 20")
    assert len(measured) == len(MODELS) * len(BACK_DAYS) * 2 * 2  # horizons and lists
    users = measured.group_by("as_of", "horizon_days", "list").agg(pl.col("users").n_unique())
    assert (users["users"] == 1).all()
    assert measured["value"].is_between(0, 1).all()
    assert done["report"].stat().st_size > 0
    assert done["measured"] == done["jobs"] == len(MODELS) * len(BACK_DAYS) * 2


def test_decay_is_worth_something_and_shuffled_times_are_not(done: dict[str, Any]) -> None:
    board = {(row["list"], row["horizon_days"], row["model"]): row for row in done["leaderboard"]}
    for horizon in (7, 14):
        for worse in ("almanac without decay", "almanac with times shuffled"):
            assert board["for_you", horizon, worse]["by_user_high"] < 0


def test_the_pooled_differences_are_those_of_the_users(done: dict[str, Any]) -> None:
    files = list((done["home"] / "backtests" / "results").glob("*-7d-*.parquet"))
    values = pl.concat(
        pl.read_parquet(file).select("list", "stratum", "user_id", "ndcg@20", file=pl.lit(file.name)) for file in files
    ).filter((pl.col("list") == "discover") & (pl.col("stratum") == "all"))
    mean = {
        name: values.filter(pl.col("file").str.contains(f"-7d-{name}-0-"))["ndcg@20"].cast(pl.Float64).mean()
        for name in ("almanac", "ease")
    }
    stored = rows(
        done["home"],
        "from mart.backtest_differences where horizon_days = 7 and list = 'discover' and stratum = 'all'"
        " and metric = 'ndcg' and k = 20 and against = 'ease'",
    ).to_dicts()[0]
    assert stored["value"] == pytest.approx(mean["almanac"])
    assert stored["difference"] == pytest.approx(mean["almanac"] - mean["ease"])
    assert stored["by_user_low"] < stored["difference"] < stored["by_user_high"]


def test_a_backtest_goes_on_where_it_was_and_ends_with_the_same_figures(
    done: dict[str, Any], published: Published, origins: tuple[date, ...]
) -> None:
    home, query = done["home"], "select * exclude (backtest_id) from mart.backtests order by all"
    before = rows(home, query)
    lost = next((home / "backtests" / "results").glob("*-almanac-0-*.parquet"))
    lost.unlink()
    again = backtest(published.files, home, origins)
    assert again["measured"] == 1
    assert again["backtest_id"] == done["backtest_id"]
    assert_frame_equal(before, rows(home, query))
    assert rows(home, "select count(*) as n from mart.backtest_runs")["n"][0] == 1


def test_an_origin_sees_exactly_what_the_daily_run_of_that_date_published(published: Published, tmp_path: Path) -> None:
    source, as_of = load_source("shop"), published.as_of - timedelta(days=7)
    shutil.copytree(published.home, tmp_path / "home", symlinks=True)
    file = prepare_origins(tmp_path / "home", source, (as_of,), (7,))[as_of]
    origin, user_ids = read_origin(file, 7)
    rankers, _ = fitted("published", origin.graph, 7, True, ModelSettings(), 20, {})
    query = "select list, user_id, rank, score from mart.recommendations where as_of = $as_of order by all"
    daily = rows(tmp_path / "home", query, as_of=as_of)
    made = []
    for name, ranker in rankers.items():
        served = lists(ranker, origin.graph, 20, name, True)
        users = pl.Series("user_id", user_ids).gather(served.user_index.numpy())
        made.append(
            pl.DataFrame(
                {
                    "list": [name] * len(users),
                    "user_id": users,
                    "rank": served.rank.int().numpy(),
                    "score": served.score,
                }
            )
        )
    assert_frame_equal(pl.concat(made).sort("list", "user_id", "rank"), daily)


def test_what_happens_after_the_horizon_changes_nothing(
    done: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    as_of = published.as_of - timedelta(days=max(BACK_DAYS))
    files = tmp_path / "files"
    shutil.copytree(published.files, files)
    kept = pl.col("occurred_at").dt.date() < as_of + timedelta(days=14)
    events = pl.read_parquet(files / "interactions.parquet")
    events.filter(kept).write_parquet(files / "interactions.parquet")
    backtest(files, tmp_path / "home", (as_of,), tune=True, models=("almanac", "decayed_popularity"))
    query = (
        "select model, list, horizon_days, stratum, metric, k, value from mart.backtests where as_of = $as_of"
        " and model = 'almanac' and stratum != 'season switch' order by all"
    )
    assert_frame_equal(rows(done["home"], query, as_of=as_of), rows(tmp_path / "home", query, as_of=as_of))


def test_a_horizon_that_the_data_do_not_cover_is_refused(published: Published, tmp_path: Path) -> None:
    shutil.copytree(published.home, tmp_path / "home", symlinks=True)
    with pytest.raises(UsageError, match="7 days must follow"):
        prepare_origins(tmp_path / "home", load_source("shop"), (published.as_of - timedelta(days=3),), (7,))


def test_the_command_line_says_what_is_wrong_with_its_dates_and_models(shop_files: Path, tmp_path: Path) -> None:
    given = ["backtest", "--source", "shop", "--input", shop_files, "--home", tmp_path / "home"]
    for arguments, said in {
        (): "--every 7d --from D1 --to D2",
        ("--origins", "2021-13-01"): "--origins takes dates",
        ("--every", "week", "--from", "2021-11-01", "--to", "2021-12-01"): "write 7d",
        ("--origins", "2021-12-01", "--models", "crystal_ball"): "crystal_ball",
    }.items():
        ended = command(*given, *arguments)
        assert ended.returncode == 2
        assert said in ended.stdout + ended.stderr

"""`almanac backtest`."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from flows.configuration import DEFAULT_HOME, BacktestConfig
from flows.terminal import Home, Verbose, configured, console, ready, reported, say
from models.settings import DAILY, MODEL, AblationName, BaselineName, ModelName, NetworkName
from tasks.errors import UsageError
from tasks.warehouse import MEMORY_LIMIT


def run_backtest(
    source: Annotated[str, typer.Option(help="A shipped source (see `almanac sources`) or a folder with SELECTs.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    origins: Annotated[str, typer.Option(help="Dates to be judged at, with commas.")] = "",
    every: Annotated[str, typer.Option(help="Or one date each so many days, e.g. 7d, with --from and --to.")] = "",
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first date.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last date at most.")] = None,
    horizon: Annotated[str, typer.Option(help="Days to find, e.g. 7d,28d; default the source's own.")] = "",
    models: Annotated[
        str, typer.Option(help="Models by name with commas; also the words baselines, ablations and all.")
    ] = ",".join((MODEL, *DAILY)),
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model, each with a seed of its own.")] = 1,
    tune: Annotated[bool, typer.Option(help="Search each baseline's settings before the first date.")] = True,
    jobs: Annotated[int | None, typer.Option(min=1, help="Fits side by side; default one per core.")] = None,
    report: Annotated[Path | None, typer.Option(help="The HTML report; default <home>/backtests/<id>.html.")] = None,
    home: Home = DEFAULT_HOME,
    memory_limit: Annotated[
        str, typer.Option(help="Most memory DuckDB takes; it spills to disk beyond.")
    ] = MEMORY_LIMIT,
    verbose: Verbose = False,
) -> None:
    """Judge models at past dates: each sees what a run of that date would see, and is held against what happened next.

    Interrupted, the same command goes on where it was. Results go to `mart.backtests` and one HTML report.

    Example: almanac backtest --source online-retail-ii --input data/online-retail-ii --every 28d
    --from 2011-03-07 --to 2011-08-01 --models almanac,repeat_trend,ease
    """
    with reported(verbose):
        config = configured(
            BacktestConfig,
            source=source,
            input=input,
            home=home,
            memory_limit=memory_limit,
            origins=_dates(origins, every, first, last),
            horizons=tuple(_days(text) for text in _words(horizon)),
            models=_models(models),
            seeds=seeds,
            tune=tune,
            report=report,
            **({"processes": jobs} if jobs else {}),
        )
        ready(config, verbose)
        from flows.backtest import rolling

        say(f"{source}: {len(config.origins)} origins, {len(config.models)} models, home {home}")
        done: dict[str, Any] = rolling(config)  # pyright: ignore[reportAssignmentType]
        _print_leaderboard(done)


def _dates(origins: str, every: str, first: datetime | None, last: datetime | None) -> tuple[date, ...]:
    """The dates listed, or those from first to last."""
    if origins and not (every or first or last):
        try:
            return tuple(sorted({date.fromisoformat(text) for text in _words(origins)}))
        except ValueError as error:
            raise UsageError(f"--origins takes dates like 2011-08-08, with commas: {error}") from error
    if not (every and first and last) or origins or first > last:
        raise UsageError("name the dates by --origins D1,D2, or by --every 7d --from D1 --to D2")
    step = timedelta(days=_days(every))
    return tuple(first.date() + number * step for number in range((last - first) // step + 1))


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdecimal() or not int(number):
        raise UsageError(f"{text!r} is no number of days; write 7d")
    return int(number)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _models(text: str) -> tuple[str, ...]:
    """Names as listed, each once; a word may stand for a group of them."""
    groups = {
        "baselines": get_args(BaselineName),
        "networks": get_args(NetworkName),
        "ablations": get_args(AblationName),
    }
    groups["all"] = (MODEL, *groups["baselines"], *groups["ablations"])
    named = tuple(dict.fromkeys(name for word in _words(text) for name in groups.get(word, (word,))))
    known = get_args(ModelName)
    if unknown := [name for name in named if name not in known]:
        raise UsageError(f"no model {', '.join(map(repr, unknown))}; there are {', '.join((*groups, *known))}")
    return named


def _print_leaderboard(done: dict[str, Any]) -> None:
    """One table per horizon and list, best first, and where the report is."""
    rows = done["leaderboard"]
    for horizon, list_name in dict.fromkeys((row["horizon_days"], row["list"]) for row in rows):
        mine = [row for row in rows if (row["horizon_days"], row["list"]) == (horizon, list_name)]
        title = f"{list_name}, the next {horizon} days: {mine[0]['users']:,} users at {mine[0]['origins']} origins"
        table = Table("model", "NDCG@20", "recall@20", "difference", "95 % by user", "by origin", "CPU s", title=title)
        for row in mine:
            told = ("", "", "")
            if row["difference"] is not None:
                told = (f"{row['difference']:+.4f}", _interval(row, "by_user"), _interval(row, "by_origin"))
            table.add_row(row["model"], f"{row['ndcg']:.4f}", f"{row['recall']:.4f}", *told, f"{row['seconds']:.1f}")
        console.print(table)
    console.print(f"{done['jobs']} fits, {done['measured']} of them now; backtest {done['backtest_id']}")
    say(f"report: {done['report']}")


def _interval(row: dict[str, Any], kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return "" if low is None else f"{low:+.4f} to {high:+.4f}"

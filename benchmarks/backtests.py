"""Backtests of every real data set by time: the model, its ablations and the tuned baselines, as the README's table.

Run: python -m benchmarks.backtests [NAME ...] (needs ALMANAC_DATA). Homes are kept below `.almanac-bench/`, so what was
measured is not measured again; `<home>/backtests/*.html` hold the reports.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

from flows.configuration import BacktestConfig
from flows.terminal import prepare_prefect
from models.settings import MODEL, AblationName, BaselineName

HOMES = Path(".almanac-bench")
BASELINES, ABLATIONS = get_args(BaselineName), get_args(AblationName)


def every(days: int, first: str, last: str) -> tuple[date, ...]:
    """Dates so many days apart, from the first to the last."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return tuple(start + timedelta(days=ahead) for ahead in range(0, (end - start).days + 1, days))


@dataclass(frozen=True)
class Benchmark:
    """What is judged where."""

    source: str
    folder: str
    origins: tuple[date, ...]
    models: tuple[str, ...] = (MODEL, *BASELINES)
    knowledge: str | None = None  # copied into the input as kg/
    options: dict[str, Any] = field(default_factory=dict)


# not EASE, whose inverse of so many items takes gigabytes
OF_NEWS = ("repeat_trend", "recent_popularity", "decayed_popularity", "personal_repeat", "item_knn", "popularity")
RETAIL = ("online-retail-ii", "online-retail-ii")
DEVELOPMENT = tuple(map(date.fromisoformat, ("2010-10-04", "2010-11-08", "2011-02-07", "2011-05-16", "2011-08-08")))
BENCHMARKS = {
    "retail": Benchmark(*RETAIL, DEVELOPMENT, (MODEL, *BASELINES, *ABLATIONS)),
    "retail-mondays": Benchmark(
        *RETAIL, every(7, "2010-11-22", "2011-08-22"), (MODEL, "repeat_trend", "ease", "graph_filter")
    ),
    "ml-100k": Benchmark("movielens", "ml-100k", every(28, "1998-01-01", "1998-03-25")),
    "ml-latest-small": Benchmark(
        "movielens", "ml-latest-small", every(56, "2017-06-01", "2018-08-25"), knowledge="movielens-kg"
    ),
    "lastfm-2k": Benchmark("lastfm-2k", "lastfm-2k", every(30, "2010-12-01", "2011-01-30"), knowledge="lastfm-2k-kg"),
    "globo-news": Benchmark("globo-news", "globo-news", every(2, "2017-10-10", "2017-10-12"), (MODEL, *OF_NEWS)),
}


def main(wanted: list[str]) -> None:
    """Prints one table per data set and list, best first."""
    for name in wanted:
        benchmark, home = BENCHMARKS[name], HOMES / name.split("-mondays")[0]
        files = input_folder(benchmark, home)
        prepare_prefect(HOMES.resolve(), verbose=False)
        from flows.backtest import rolling

        given = {"models": benchmark.models, **benchmark.options}
        config = BacktestConfig(source=benchmark.source, input=files, home=home, origins=benchmark.origins, **given)
        done: dict[str, Any] = rolling(config)  # pyright: ignore[reportAssignmentType]
        _print(name, done)


def input_folder(benchmark: Benchmark, home: Path) -> Path:
    """The data set's folder, or a copy of it together with its knowledge graph."""
    folder = Path(os.environ["ALMANAC_DATA"]) / benchmark.folder
    if benchmark.knowledge is None:
        return folder
    copied = home / "landing" / "files"
    if not copied.exists():
        shutil.copytree(folder, copied)
        shutil.copytree(folder.parent / benchmark.knowledge, copied / "kg")
    return copied


def _print(name: str, done: dict[str, Any]) -> None:
    rows = done["leaderboard"]
    for list_name in dict.fromkeys(row["list"] for row in rows):
        mine = [row for row in rows if row["list"] == list_name]
        print(f"\n{name}, {list_name}: {mine[0]['users']:,} users at {mine[0]['origins']} origins; {done['report']}\n")
        print("| model | NDCG@20 | recall@20 | minus almanac | 95 % by user | by origin | CPU s a fit |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for row in mine:
            told = ("", "", "")
            if row["difference"] is not None:
                told = (f"{row['difference']:+.4f}", _interval(row, "by_user"), _interval(row, "by_origin"))
            cells = (row["model"], f"{row['ndcg']:.4f}", f"{row['recall']:.4f}", *told, f"{row['seconds']:.1f}")
            print(f"| {' | '.join(cells)} |", flush=True)


def _interval(row: dict[str, Any], kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return "" if low is None else f"{low:+.4f} to {high:+.4f}"


if __name__ == "__main__":
    main(sys.argv[1:] or list(BENCHMARKS))

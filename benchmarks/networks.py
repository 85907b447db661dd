"""Every graph network at origins of real shops, with the clock and without: what decay and season are worth to each.

Run: python -m benchmarks.networks [every] [best] (needs ALMANAC_DATA). `every`: all networks, one seed, on two origins of
Online Retail II and one of Last.fm; `best`: the five best of those on five origins of Online Retail II with three seeds, the
clock where it helped. The network alone is measured, without the head that adds popularity and own events. Finished fits are
kept below .almanac-bench/; seconds are CPU time of the fit, one thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

import polars as pl

from benchmarks.backtests import BENCHMARKS, DEVELOPMENT, HOMES, Benchmark, input_folder
from flows.configuration import BacktestConfig
from flows.terminal import prepare_prefect
from models.baselines import FOREVER
from models.contenders import Options
from models.settings import ModelSettings, NetworkName
from tasks.backtest import Job, cost_file, measure_jobs, prepare_origins
from tasks.runs import code_version, digest
from tasks.sources import load_source

CLOCKS = {"undecayed": {"half_life": FOREVER, "season": 0.0}, "decayed": {"half_life": 8.0, "season": 0.3}}
ORIGINS = {
    "retail": (date(2010, 11, 8), date(2011, 5, 16)),
    "lastfm-2k": (date(2010, 12, 1),),
}
BEST, SEEDS = 5, 3
LISTS = ("for_you", "discover")


@dataclass(frozen=True)
class Fit:
    """One network on one data set, by one clock."""

    data: str
    network: str
    clock: str
    jobs: tuple[Job, ...]

    @property
    def ndcg(self) -> dict[str, float]:
        """NDCG@20 of each list that the source has, the mean over origins and seeds."""
        values: dict[str, list[float]] = {}
        for job in self.jobs:
            frame = pl.read_parquet(job.result).filter(pl.col("stratum") == "all")
            for list_name, mean in frame.group_by("list").agg(pl.col("ndcg@20").mean()).iter_rows():
                values.setdefault(list_name, []).append(mean)
        return {name: fmean(of) for name, of in values.items()}

    @property
    def spread(self) -> float:
        """Standard deviation of `discover` over the seeds, each the mean over the origins."""
        by_seed: dict[int, list[Job]] = {}
        for job in self.jobs:
            by_seed.setdefault(job.seed, []).append(job)
        means = [replace(self, jobs=tuple(jobs)).ndcg["discover"] for jobs in by_seed.values()]
        return stdev(means) if len(means) > 1 else 0.0

    def cost(self, name: str) -> float:
        """The largest `seconds` or `peak_mb` of the fits."""
        return max(json.loads(cost_file(job).read_text())[name] for job in self.jobs)


def measured(
    data: str, origins: Iterable[date], networks: Iterable[str], clocks: Iterable[str], seeds: int
) -> list[Fit]:
    """Every network by every clock, at these origins; what was measured before is not measured again."""
    benchmark, home = BENCHMARKS[data], HOMES / data
    source = load_source(benchmark.source)
    files = _origins(benchmark, data, home, tuple(origins))
    code, fits = code_version("models"), []
    for network in networks:
        for clock in clocks:
            jobs = []
            for as_of, file in files.items():
                for seed in range(seeds):
                    options: Options = {network: {name: CLOCKS[clock] | {"head": 0.0} for name in LISTS}}
                    key = digest(code, file.name, network, options, seed)
                    result = home / "networks" / f"{as_of}-{network}-{clock}-{seed}-{key}.parquet"
                    settings = ModelSettings(seed=seed)
                    horizon = source.horizon_days
                    jobs.append(Job(file, as_of, horizon, network, seed, source.repeats, settings, options, result))
            fits.append(Fit(data, network, clock, tuple(jobs)))
    measure_jobs([job for fit in fits for job in fit.jobs], processes=2)
    return fits


def _origins(benchmark: Benchmark, data: str, home: Path, origins: tuple[date, ...]) -> dict[date, Path]:
    """The graph files of the origins, made by a backtest of the cheapest model."""
    prepare_prefect(HOMES.resolve(), verbose=False)
    from flows.backtest import rolling

    source, folder = load_source(benchmark.source), input_folder(benchmark, HOMES / data)
    given: dict[str, Any] = {"models": ("popularity",), "tune": False}
    rolling(BacktestConfig(source=benchmark.source, input=folder, home=home, origins=origins, **given))
    return prepare_origins(home.resolve(), source, origins, (source.horizon_days,))


def table(fits: list[Fit]) -> str:
    """Markdown, best in `discover` first."""
    lines = ["| data | network | clock | for_you | discover | ± seeds | CPU s | peak MB |", "| --- " * 8 + "|"]
    for fit in sorted(fits, key=lambda one: (one.data, -one.ndcg["discover"])):
        ndcg = fit.ndcg
        lists = [f"{ndcg[name]:.4f}" if name in ndcg else "–" for name in LISTS]
        spread = f"{fit.spread:.4f}" if fit.spread else "–"
        cost = [f"{fit.cost('seconds'):.0f}", f"{fit.cost('peak_mb'):.0f}"]
        lines.append(f"| {' | '.join([fit.data, fit.network, fit.clock, *lists, spread, *cost])} |")
    return "\n".join(lines)


def best(fits: list[Fit]) -> list[tuple[str, str]]:
    """The networks with the highest `discover` on Online Retail II, each with its better clock."""
    ranked = sorted((fit for fit in fits if fit.data == "retail"), key=lambda one: -one.ndcg["discover"])
    better: dict[str, str] = {}
    for fit in ranked:
        better.setdefault(fit.network, fit.clock)
    return list(better.items())[:BEST]


def main(wanted: list[str]) -> None:
    """Prints the tables."""
    networks = get_args(NetworkName)
    every = [fit for data, origins in ORIGINS.items() for fit in measured(data, origins, networks, CLOCKS, 1)]
    if "every" in wanted:
        print(table(every), flush=True)
    if "best" in wanted:
        chosen = [measured("retail", DEVELOPMENT, [name], [clock], SEEDS)[0] for name, clock in best(every)]
        print(table(chosen))


if __name__ == "__main__":
    main(sys.argv[1:] or ["every", "best"])

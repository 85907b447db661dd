"""Backtests: the graph as of each origin and what happened next, measured side by side, gathered with paired intervals."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from models.baselines import BASELINES
from models.contenders import Options, fitted
from models.origin import KS, Origin, measure
from models.settings import ModelSettings
from tasks.errors import UsageError
from tasks.graph import load_graph, node_ids
from tasks.ingest import source_snapshot
from tasks.processes import side_by_side
from tasks.runs import code_version, digest
from tasks.snapshots import read_graph, write_graph
from tasks.sources import Source
from tasks.transform import build_graph, build_staging
from tasks.tuning import tuned
from tasks.warehouse import open_warehouse, select, storing


@dataclass(frozen=True)
class Job:
    """One model at one origin, over one horizon, with one seed."""

    origin: Path
    as_of: date
    horizon_days: int
    model: str
    seed: int
    repeats: bool
    settings: ModelSettings
    options: Options
    result: Path


def read_until(origins: tuple[date, ...], horizons: tuple[int, ...]) -> date:
    """A horizon further than what is measured: where events are dated by the month, later ones tell that a month is whole."""
    return max(origins) + timedelta(days=2 * max(horizons))


def prepare_origins(
    home: Path, source: Source, origins: tuple[date, ...], horizons: tuple[int, ...]
) -> dict[date, Path]:
    """For each origin a file with the graph as of it, made as a daily run makes it, and the pairs of the days after.

    Files of an earlier backtest on the same data are kept. Raises `UsageError` where the data end within a horizon.
    """
    longest = max(horizons)
    build_staging(home, source, read_until(origins, horizons))
    with open_warehouse(home) as warehouse:
        first, last = warehouse.execute("select min(event_date), max(event_date) from staging.interactions").fetchall()[
            0
        ]
        for origin in origins:
            if first is None or not first < origin <= last - timedelta(days=longest - 1):
                raise UsageError(
                    f"origin {origin} does not fit: the events go from {first} to {last}, and {longest} days must follow it"
                )
        outcomes = "create or replace table scored.outcomes as select distinct user_id, item_id, event_date"
        warehouse.execute(f"{outcomes} from staging.interactions where event_date >= $first", {"first": min(origins)})
        snapshots = {day: source_snapshot(warehouse, day + timedelta(days=longest)) for day in origins}
    folder = home / "backtests" / "origins"
    folder.mkdir(parents=True, exist_ok=True)
    code = code_version("sql")
    files = {}
    for as_of in tqdm(origins, desc="origins", unit="graph", disable=None):
        key = digest(source.name, source.model_dump_json(), code, snapshots[as_of], longest, "with ids")
        files[as_of] = file = folder / f"{as_of}-{key}.pt"
        if not file.exists():
            build_staging(home, source, as_of)
            build_graph(home, source, as_of)
            with open_warehouse(home) as warehouse, storing(home):
                graph = load_graph(warehouse, as_of, tuple(source.event_strength))
                coming = select(warehouse, "mart/outcomes", as_of=as_of)
                columns = {
                    name: torch.from_numpy(np.array(coming[name].to_numpy())).long() for name in coming.column_names
                }
                write_graph(file, graph, node_ids(warehouse), outcomes=columns)
    return files


def tune_baselines(
    home: Path,
    source: Source,
    origins: dict[date, Path],
    horizons: tuple[int, ...],
    models: tuple[str, ...],
    settings: ModelSettings,
    processes: int,
) -> dict[int, Options]:
    """By horizon and baseline what suits each list on the holdouts before the first origin; what was found is kept."""
    first = origins[min(origins)]
    baselines = [name for name in BASELINES if name in models]
    graph = read_origin(first, 1)[0].graph
    return {
        horizon: tuned(
            home, source.name, first.stem, graph, horizon, source.repeats, baselines, settings, max(KS), processes
        )
        for horizon in horizons
    }


def plan(
    home: Path,
    source: Source,
    origins: dict[date, Path],
    horizons: tuple[int, ...],
    models: tuple[str, ...],
    seeds: int,
    settings: ModelSettings,
    options: dict[int, Options],
) -> list[Job]:
    """Every measurement of the backtest; its result file is named by all that it depends on, so nothing is done twice.

    options: by horizon, what tuning found for the baselines.
    """
    folder, code, jobs = home / "backtests" / "results", code_version("models"), []
    for as_of, file in origins.items():
        for horizon in horizons:
            for model in models:
                for seed in range(seeds):
                    seeded = settings.model_copy(update={"seed": settings.seed + seed})
                    mine = {model: options[horizon][model]} if model in options.get(horizon, {}) else {}
                    key = digest(code, file.name, horizon, model, source.repeats, seeded.model_dump_json(), mine)
                    name = f"{as_of}-{horizon}d-{model.replace(' ', '-')}-{seed}-{key}.parquet"
                    job = Job(file, as_of, horizon, model, seed, source.repeats, seeded, mine, folder / name)
                    jobs.append(job)
    return jobs


def measure_jobs(jobs: list[Job], processes: int) -> int:
    """Fits and measures what is not yet there, in so many processes; returns how many that were."""
    missing = [job for job in jobs if not job.result.exists()]
    with side_by_side(processes) as pool:
        running = [pool.submit(measure_job, job) for job in missing]
        try:
            for done in tqdm(as_completed(running), total=len(running), desc="backtest", unit="fit", disable=None):
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return len(missing)


def measure_job(job: Job) -> None:
    """Writes the job's result: per list, stratum and user every metric; beside it, as JSON, what the fit chose and cost."""
    torch.set_num_threads(1)  # sums depend on the number of threads
    origin, user_ids = read_origin(job.origin, job.horizon_days)
    _forget_peak()
    start = time.process_time()
    rankers, choice = fitted(job.model, origin.graph, job.horizon_days, job.repeats, job.settings, max(KS), job.options)
    seconds = time.process_time() - start
    frame, coverage = measure(rankers, origin, job.repeats)
    cost = {"seconds": seconds, "peak_mb": _peak_mb(), "choice": choice, "coverage": coverage, "shift": origin.shift}
    users = pl.Series("user_id", user_ids, dtype=pl.String).gather(frame["user_index"])
    frame = frame.with_columns(users).drop("user_index")
    job.result.parent.mkdir(parents=True, exist_ok=True)
    partial = job.result.with_suffix(".partial")
    cost_file(job).write_text(json.dumps(cost, default=str))
    frame.write_parquet(partial)
    os.replace(partial, job.result)


def read_origin(file: Path, horizon_days: int) -> tuple[Origin, list[str]]:
    """What `prepare_origins` stored, for one of the horizons; and the users' ids."""
    stored = read_graph(file)
    graph, outcomes = stored["graph"], stored["outcomes"]
    within = outcomes["day"] < horizon_days
    pair = torch.unique(outcomes["user_index"][within] * graph.item_count + outcomes["item_index"][within])
    live = graph.live_items[pair % graph.item_count]
    pair = pair[live]
    return Origin(graph, horizon_days, pair // graph.item_count, pair % graph.item_count), stored["ids"][0]


def cost_file(job: Job) -> Path:
    """What the fit chose and cost, as JSON."""
    return job.result.with_suffix(".json")


def _forget_peak() -> None:
    """Makes the kernel measure this process's peak anew, where it can (Linux)."""
    place = Path("/proc/self/clear_refs")
    if place.exists():
        place.write_text("5")


def _peak_mb() -> float | None:
    """Most memory since `_forget_peak`, in 10⁶ bytes."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1.024e-3 for line in lines if line.startswith("VmHWM")), None)

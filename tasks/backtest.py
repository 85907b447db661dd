"""Backtests: the graph as of each origin and what happened next, measured side by side, gathered with paired intervals."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from models.baselines import BASELINES
from models.contenders import Options, fitted
from models.graph import Context, Edges, Graph, Interactions
from models.metrics import METRICS, bootstrap_intervals
from models.origin import KS, Origin, measure
from models.settings import MODEL, ModelSettings
from tasks.errors import UsageError
from tasks.graph import load_graph, node_ids
from tasks.ingest import source_snapshot
from tasks.runs import code_version
from tasks.sources import Source
from tasks.transform import build_graph, build_staging
from tasks.tuning import tuned
from tasks.warehouse import open_warehouse, replace_partition, scalar, select, storing, transaction

WARM_DAYS = 10  # with events, from which on a user counts as warm
SWITCHES = 0.2  # share of the origins that count as season switches
LEAST_ORIGINS = 5  # to tell a switch from the others
KINDS = [Graph, Interactions, Edges, Context, date]


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


def prepare_origins(
    home: Path, source: Source, origins: tuple[date, ...], horizons: tuple[int, ...]
) -> dict[date, Path]:
    """For each origin a file with the graph as of it, made as a daily run makes it, and the pairs of the days after.

    Files of an earlier backtest on the same data are kept. Raises `UsageError` where the data end within a horizon.
    """
    longest = max(horizons)
    build_staging(home, source, max(origins) + timedelta(days=longest))
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
        key = _digest(source.name, source.model_dump_json(), code, snapshots[as_of], longest)
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
                partial = file.with_suffix(".partial")
                torch.save({"graph": graph, "user_ids": node_ids(warehouse)[0], "outcomes": columns}, partial)
                os.replace(partial, file)
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
                    key = _digest(code, file.name, horizon, model, source.repeats, seeded.model_dump_json(), mine)
                    name = f"{as_of}-{horizon}d-{model.replace(' ', '-')}-{seed}-{key}.parquet"
                    job = Job(file, as_of, horizon, model, seed, source.repeats, seeded, mine, folder / name)
                    jobs.append(job)
    return jobs


def measure_jobs(jobs: list[Job], processes: int) -> int:
    """Fits and measures what is not yet there, in so many processes; returns how many that were."""
    missing = [job for job in jobs if not job.result.exists()]
    with ProcessPoolExecutor(max_workers=processes, mp_context=get_context("spawn")) as pool:
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
    _beside(job).write_text(json.dumps(cost, default=str))
    frame.write_parquet(partial)
    os.replace(partial, job.result)


def read_origin(file: Path, horizon_days: int) -> tuple[Origin, list[str]]:
    """What `prepare_origins` stored, for one of the horizons; and the users' ids."""
    with torch.serialization.safe_globals(KINDS):
        stored = torch.load(file, weights_only=True)
    graph, outcomes = stored["graph"], stored["outcomes"]
    within = outcomes["day"] < horizon_days
    pair = torch.unique(outcomes["user_index"][within] * graph.item_count + outcomes["item_index"][within])
    live = graph.live_items[pair % graph.item_count]
    pair = pair[live]
    return Origin(graph, horizon_days, pair // graph.item_count, pair % graph.item_count), stored["user_ids"]


def gather(
    home: Path, source: Source, jobs: list[Job], started_at: datetime, finished_at: datetime, config: dict
) -> str:
    """Fills `mart.backtests` and its companions from the jobs' results; returns the id, equal for equal backtests."""
    backtest_id = _digest(*sorted(job.result.name for job in jobs))
    costs = [(job, json.loads(_beside(job).read_text())) for job in jobs]
    switches = _switches({(job.as_of, job.horizon_days): cost["shift"] for job, cost in costs})
    frames, differences = [], []
    for horizon in sorted({job.horizon_days for job in jobs}):
        mine = [job for job in jobs if job.horizon_days == horizon]
        users = pl.concat([_users(job) for job in mine], how="diagonal")
        users = pl.concat([users, *_user_strata(users, switches[horizon])], how="diagonal")
        frames.append(_means(users, horizon))
        differences += [_differences(part, horizon, [job.model for job in mine]) for part in _comparable(users)]
    covered = pl.DataFrame(
        [
            {"as_of": job.as_of, "horizon_days": job.horizon_days, "model": job.model, "seed": job.seed, "list": name}
            | {"stratum": "all", "metric": "coverage", "k": max(KS), "value": share}
            for job, cost in costs
            for name, share in cost["coverage"].items()
        ]
    )
    fits = pl.DataFrame(
        [
            {"as_of": job.as_of, "horizon_days": job.horizon_days, "model": job.model, "seed": job.seed}
            | {"seconds": cost["seconds"], "peak_mb": cost["peak_mb"], "choice": json.dumps(cost["choice"])}
            for job, cost in costs
        ]
    )
    with open_warehouse(home) as warehouse, transaction(warehouse):
        lineage = {
            "source": source.name,
            "started_at": started_at,
            "finished_at": finished_at,
            "source_snapshot": source_snapshot(warehouse, max(job.as_of for job in jobs)),
            "code_version": code_version(),
            "config": json.dumps(config, default=str),
        }
        for table, frame in {
            "backtest_runs": pl.DataFrame([lineage]),
            "backtests": pl.concat([*frames, covered], how="diagonal").with_columns(source=pl.lit(source.name)),
            "backtest_differences": pl.concat(differences),
            "backtest_fits": fits,
        }.items():
            warehouse.register("frame", frame.with_columns(backtest_id=pl.lit(backtest_id)).to_arrow())
            replace_partition(warehouse, f"mart.{table}", "select * from frame", backtest_id=backtest_id)
    return backtest_id


def leaderboard(home: Path, backtest_id: str) -> list[dict[str, Any]]:
    """Per horizon and list each model's pooled NDCG@20 and recall@20, and its difference to the model with intervals."""
    with open_warehouse(home) as warehouse:
        return select(warehouse, "mart/leaderboard", backtest_id=backtest_id).to_pylist()


def last_event(home: Path) -> date | None:
    """The newest date of an event in `staging.interactions`."""
    with open_warehouse(home) as warehouse:
        return scalar(warehouse, "select max(event_date) from staging.interactions")


def _users(job: Job) -> pl.DataFrame:
    return pl.read_parquet(job.result).with_columns(
        as_of=pl.lit(job.as_of), model=pl.lit(job.model), seed=pl.lit(job.seed, pl.Int64)
    )


def _user_strata(users: pl.DataFrame, switches: list[date]) -> Iterator[pl.DataFrame]:
    """Rows of the stratum `all` again, under the names of the users' and the origins' strata."""
    everyone = users.filter(pl.col("stratum") == "all")
    for name, condition in {
        "warm users": pl.col("days") >= WARM_DAYS,
        "few-event users": pl.col("days").is_between(1, WARM_DAYS - 1),
        "cold users": pl.col("days") == 0,
        "season switch": pl.col("as_of").is_in(switches),
    }.items():
        yield everyone.filter(condition).with_columns(stratum=pl.lit(name))


def _means(users: pl.DataFrame, horizon: int) -> pl.DataFrame:
    metrics = [column for column in users.columns if "@" in column]
    keys = ["as_of", "model", "seed", "list", "stratum"]
    means = users.group_by(keys).agg(pl.len().alias("users"), *(pl.col(name).fill_nan(None).mean() for name in metrics))
    name, k = (pl.col("metric").str.split("@").list.get(part) for part in (0, 1))
    return (
        means.unpivot(metrics, index=[*keys, "users"], variable_name="metric")
        .drop_nulls("value")
        .with_columns(
            horizon_days=pl.lit(horizon, pl.Int64),
            metric=name,
            k=k.cast(pl.Int64),
            users=pl.col("users").cast(pl.Int64),
        )
        .with_columns(pl.col("value").cast(pl.Float64))
        .sort([*keys, "metric", "k"])
    )


def _comparable(users: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for _, part in users.group_by("list", "stratum", maintain_order=True):
        yield part


def _differences(users: pl.DataFrame, horizon: int, models: list[str]) -> pl.DataFrame:
    """Of one list and stratum: the model minus each other one, on the same users and origins, seeds averaged."""
    others = list(dict.fromkeys(models))
    reference = MODEL if MODEL in others else others[0]
    others.remove(reference)
    metrics = [name for name in users.columns if name.partition("@")[0] in METRICS]
    values = users.group_by("model", "as_of", "user_id").agg(pl.col(metrics).mean()).sort("model", "as_of", "user_id")
    base = values.filter(pl.col("model") == reference)
    table = {
        name: values.filter(pl.col("model") == name).select(metrics).to_numpy().astype("float64")
        for name in (reference, *others)
    }
    difference = np.concatenate([np.zeros((len(base), 0)), *(table[reference] - table[other] for other in others)], 1)
    by_user, by_origin = (
        bootstrap_intervals(difference, np.unique(base[column].to_numpy(), return_inverse=True)[1])
        for column in ("user_id", "as_of")
    )
    rows = []
    for place, (other, metric) in enumerate((other, metric) for other in others for metric in metrics):
        name, k = metric.split("@")
        column = metrics.index(metric)
        rows.append(
            {
                "horizon_days": horizon,
                "list": users["list"][0],
                "stratum": users["stratum"][0],
                "metric": name,
                "k": int(k),
                "model": reference,
                "against": other,
                "value": float(table[reference][:, column].mean()),
                "against_value": float(table[other][:, column].mean()),
                "difference": float(difference[:, place].mean()),
                "by_user_low": by_user[0][place],
                "by_user_high": by_user[1][place],
                "by_origin_low": by_origin[0][place],
                "by_origin_high": by_origin[1][place],
                "users": len(base),
                "origins": base["as_of"].n_unique(),
            }
        )
    return pl.DataFrame(rows, DIFFERENCES)


INTERVALS = ("by_user_low", "by_user_high", "by_origin_low", "by_origin_high")
DIFFERENCES: dict[str, Any] = {"horizon_days": pl.Int64, "list": pl.String, "stratum": pl.String, "metric": pl.String}
DIFFERENCES |= {"k": pl.Int64, "model": pl.String, "against": pl.String}
DIFFERENCES |= dict.fromkeys(("value", "against_value", "difference", *INTERVALS), pl.Float64)
DIFFERENCES |= {"users": pl.Int64, "origins": pl.Int64}


def _switches(shifts: dict[tuple[date, int], float]) -> dict[int, list[date]]:
    """By horizon the origins whose coming weeks sell most unlike the last ones; none where there are few origins."""
    result = {}
    for horizon in {horizon for _, horizon in shifts}:
        ordered = sorted((-shift, as_of) for (as_of, other), shift in shifts.items() if other == horizon)
        count = round(SWITCHES * len(ordered)) if len(ordered) >= LEAST_ORIGINS else 0
        result[horizon] = [as_of for _, as_of in ordered[:count]]
    return result


def _beside(job: Job) -> Path:
    return job.result.with_suffix(".json")


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]


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

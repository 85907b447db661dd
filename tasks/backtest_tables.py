"""A backtest's tables: means, strata and paired differences from the results of its fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.metrics import METRICS, bootstrap_intervals
from models.origin import KS
from models.settings import MODEL
from tasks.backtest import Job, cost_file
from tasks.ingest import source_snapshot
from tasks.runs import code_version, digest
from tasks.sources import Source
from tasks.warehouse import open_warehouse, replace_partition, select, transaction

WARM_DAYS = 10  # with events, from which on a user counts as warm
SWITCHES = 0.2  # share of the origins that count as season switches
LEAST_ORIGINS = 5  # to tell a switch from the others
INTERVALS = ("by_user_low", "by_user_high", "by_origin_low", "by_origin_high")
DIFFERENCES: dict[str, Any] = {"horizon_days": pl.Int64, "list": pl.String, "stratum": pl.String, "metric": pl.String}
DIFFERENCES |= {"k": pl.Int64, "model": pl.String, "against": pl.String}
DIFFERENCES |= dict.fromkeys(("value", "against_value", "difference", *INTERVALS), pl.Float64)
DIFFERENCES |= {"users": pl.Int64, "origins": pl.Int64}


def gather(
    home: Path, source: Source, jobs: list[Job], started_at: datetime, finished_at: datetime, config: dict
) -> str:
    """Fills `mart.backtests` and its companions from the jobs' results; returns the id, equal for equal backtests."""
    backtest_id = digest(*sorted(job.result.name for job in jobs))
    costs = [(job, json.loads(cost_file(job).read_text())) for job in jobs]
    switches = _switches({(job.as_of, job.horizon_days): cost["shift"] for job, cost in costs})
    frames, differences = [], []
    for horizon in sorted({job.horizon_days for job in jobs}):
        mine = [job for job in jobs if job.horizon_days == horizon]
        users = pl.concat([_users(job) for job in mine], how="diagonal")
        users = pl.concat([users, *_user_strata(users, switches[horizon])], how="diagonal")
        frames.append(_means(users, horizon))
        parts = users.group_by("list", "stratum", maintain_order=True)
        differences += [_differences(part, horizon, [job.model for job in mine]) for _, part in parts]
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


def _switches(shifts: dict[tuple[date, int], float]) -> dict[int, list[date]]:
    """By horizon the origins whose coming weeks sell most unlike the last ones; none where there are few origins."""
    result = {}
    for horizon in {horizon for _, horizon in shifts}:
        ordered = sorted((-shift, as_of) for (as_of, other), shift in shifts.items() if other == horizon)
        count = round(SWITCHES * len(ordered)) if len(ordered) >= LEAST_ORIGINS else 0
        result[horizon] = [as_of for _, as_of in ordered[:count]]
    return result

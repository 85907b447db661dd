"""Models on record: which one a date is scored with, what is known of each, and who may be used again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from duckdb import DuckDBPyConnection

from models.network import LISTS, told
from tasks.errors import RunError, UsageError
from tasks.recommend import NOBODY, read_judged
from tasks.sources import Source
from tasks.warehouse import exists, open_warehouse, replace_partition, scalar, storing, transaction

Retrain = Literal["daily", "weekly", "never"]
WEEK = timedelta(days=7)
TEXT, NUMBER = pl.String, pl.Float64
METRICS = {"as_of": pl.Date, "run_id": TEXT, "list_name": TEXT, "ranker": TEXT, "holdout_date": pl.Date}
METRICS |= {"metric": TEXT, "k": pl.Int64, "value": NUMBER, "users": pl.Int64}
GATE = {"as_of": pl.Date, "run_id": TEXT, "list_name": TEXT, "ranker": TEXT, "blocked_by": TEXT}
GATE |= {"difference": NUMBER, "lower_bound": NUMBER, "why": TEXT}
MODELS = (
    "model_version varchar, run_id varchar, trained_as_of date, trained_at timestamp, epochs bigint, finishes varchar,"
    " artifact varchar, artifact_hash varchar, settings varchar, learned_half_lives_days varchar, parent varchar,"
    " source_snapshot varchar, config varchar, metrics varchar, options varchar, rankers varchar,"
    " promoted_at timestamp, promoted_as_of date, demoted_at timestamp, demoted_because varchar"
)


@dataclass(frozen=True)
class Choice:
    """What a date's lists are made by: the model, and per list the gate's ranker with its options and reason."""

    model_version: str
    rankers: dict[str, str]
    options: dict[str, Any]
    why: dict[str, str]


def ensure_registry(warehouse: DuckDBPyConnection) -> None:
    """Makes `mart.models`, or adds the columns that one of an earlier version lacks."""
    warehouse.execute(f"create table if not exists mart.models ({MODELS})")
    for column in MODELS.split(", "):
        warehouse.execute(f"alter table mart.models add column if not exists {column.strip()}")


def plan_training(home: Path, dates: list[date], retrain: Retrain) -> dict[date, str | date]:
    """By date the version it is scored with, or the date as of which the plan trains that model.

    daily: every date trains; weekly: where the newest usable model is a week old; never: only what is on record.
    Usable are models trained as of the date or before, not demoted, of a run that is not withdrawn, whose data have not
    changed since and whose date is not itself done anew. Raises `UsageError` where `never` finds none.
    """
    if retrain == "daily":
        return {as_of: as_of for as_of in dates}
    with open_warehouse(home) as warehouse:
        ensure_registry(warehouse)
        known = warehouse.execute(
            "select unnest([trained_as_of, greatest(trained_as_of, promoted_as_of)]) as since, models.model_version"
            " from mart.models join mart.runs using (run_id) where demoted_at is null and withdrawn_at is null"
            " and stale_since is null and published_at is not null and not list_contains($dates, trained_as_of)"
            " order by since, promoted_at desc nulls last, trained_as_of desc, trained_at desc",
            {"dates": dates},
        ).fetchall()
    plan: dict[date, str | date] = {}
    trained: list[date] = []
    for as_of in sorted(dates):
        usable = [(since, version) for since, version in known if since <= as_of] + [(day, day) for day in trained]
        since, model = max(usable, key=lambda pair: pair[0], default=(None, None))  # of equals the first
        if retrain == "weekly" and (since is None or as_of - since >= WEEK):
            trained.append(as_of)
            model = as_of
        if model is None:
            raise UsageError(f"no model on record may score {as_of}; train one with --retrain daily or weekly")
        plan[as_of] = model
    return plan


def artifact(home: Path, version: str) -> Path:
    """The stored model; raises `RunError` where it is gone or not what was stored."""
    with open_warehouse(home) as warehouse:
        query = "select artifact, artifact_hash from mart.models where model_version = $version"
        found = warehouse.execute(query, {"version": version}).fetchall()
    file = home / found[0][0] if found else None
    if file is None or not file.is_file() or _hash(file) != found[0][1]:
        raise RunError(
            f"model {version} is not in {home / 'models'} as it was stored; train anew: run the date with --retrain daily"
        )
    return file


def register(
    home: Path,
    source: Source,
    as_of: date,
    folder: Path,
    run_id: str,
    trained_at: datetime,
    snapshot: str,
    config: dict[str, Any],
) -> str:
    """Stores the folder's `model.pt` under its version with a row in `mart.models`; returns the version."""
    file = folder / "model.pt"
    digest, judged = _hash(file), read_judged(folder)
    packed = torch.load(file, weights_only=True, mmap=True)
    version = f"{source.name}-{as_of}-{digest[:12]}"
    stored = home / "models" / f"{version}.pt"
    stored.parent.mkdir(exist_ok=True)
    with storing(home):
        shutil.copyfile(file, stored.with_suffix(".partial"))
        with stored.with_suffix(".partial").open("rb") as written:
            os.fsync(written.fileno())
        os.replace(stored.with_suffix(".partial"), stored)
    row = {
        "model_version": version,
        "run_id": run_id,
        "trained_as_of": as_of,
        "trained_at": trained_at,
        "epochs": judged["epochs"],
        "finishes": json.dumps(told(judged["finishes"])),
        "artifact": f"models/{version}.pt",
        "artifact_hash": digest,
        "settings": json.dumps(judged["settings"]),
        "learned_half_lives_days": json.dumps(packed["learned_half_lives_days"]),
        "parent": packed["parent"],
        "source_snapshot": snapshot,
        "config": json.dumps(config, default=str),
        "metrics": json.dumps(_ndcg(judged["rows"])),
        "options": json.dumps(judged["options"]),
    }
    with open_warehouse(home) as warehouse, transaction(warehouse):
        ensure_registry(warehouse)
        warehouse.register("frame", pl.DataFrame([row], infer_schema_length=None).to_arrow())
        replace_partition(warehouse, "mart.models", "select * from frame", model_version=version)
    return version


def choose(home: Path, as_of: date, folder: Path, run_id: str, top_k: int, version: str) -> Choice:
    """Passes the gate of a date that was judged; writes `scored.metrics` and `scored.gate`."""
    judged = read_judged(folder)
    with open_warehouse(home) as warehouse:
        verdicts = {name: _verdict(judged["verdicts"][name], _incumbent(warehouse, name, as_of)) for name in LISTS}
        metrics = [row | {"as_of": as_of, "run_id": run_id, "k": top_k} for row in judged["rows"]]
        gate = [verdict | {"as_of": as_of, "run_id": run_id} for verdict in verdicts.values()]
        rankers = {name: verdict["ranker"] for name, verdict in verdicts.items()}
        with transaction(warehouse):
            _replace(warehouse, "scored.metrics", pl.DataFrame(metrics, METRICS), as_of)
            _replace(warehouse, "scored.gate", pl.DataFrame(gate, GATE), as_of)
            warehouse.execute(
                "update mart.models set rankers = $rankers where model_version = $version",
                {"rankers": json.dumps(rankers), "version": version},
            )
    options = {name: judged["options"].get(name, {}).get(ranker) for name, ranker in rankers.items()}
    return Choice(version, rankers, options, {name: verdict["why"] for name, verdict in verdicts.items()})


def carry_on(home: Path, as_of: date, run_id: str, version: str) -> Choice:
    """The choice made when the version was judged, for a date that trains nothing; writes `scored.gate`."""
    with open_warehouse(home) as warehouse:
        query = "select trained_as_of, rankers, options from mart.models where model_version = $version"
        trained_as_of, rankers, options = warehouse.execute(query, {"version": version}).fetchall()[0]
        rankers, options = json.loads(rankers), json.loads(options)
        why = {name: f"{name}: {ranker}, as judged on {trained_as_of}" for name, ranker in rankers.items()}
        rows = [
            {"as_of": as_of, "run_id": run_id, "list_name": name, "ranker": rankers[name], "why": why[name]}
            for name in LISTS
        ]
        with transaction(warehouse):
            _replace(warehouse, "scored.metrics", pl.DataFrame([], METRICS), as_of)
            _replace(warehouse, "scored.gate", pl.DataFrame(rows, GATE), as_of)
    mine = {name: options.get(name, {}).get(ranker) for name, ranker in rankers.items()}
    return Choice(version, rankers, mine, why)


def take_scores(home: Path, as_of: date, folder: Path, run_id: str) -> None:
    """Makes the folder's Parquet files `scored.recommendations` and `scored.item_recommendations`."""
    with open_warehouse(home) as warehouse:
        for table in ("recommendations", "item_recommendations"):
            warehouse.execute(
                f"create or replace table scored.{table} as select *, $as_of::date as as_of, $run_id as run_id"
                " from read_parquet($file)",
                {"as_of": as_of, "run_id": run_id, "file": str(folder / f"{table}.parquet")},
            )


def earlier_model(home: Path, as_of: date) -> str | None:
    """The newest version of an earlier date that a warm start may train on from."""
    with open_warehouse(home) as warehouse:
        ensure_registry(warehouse)
        newest = "select arg_max(model_version, (trained_as_of, trained_at)) from mart.models"
        return scalar(warehouse, f"{newest} where trained_as_of < $as_of and demoted_at is null", as_of=as_of)


def list_models(home: Path) -> list[dict[str, Any]]:
    """Every version, newest first, with the dates published from it."""
    with open_warehouse(home) as warehouse:
        if not exists(warehouse, "mart.runs"):
            return []
        ensure_registry(warehouse)
        query = (
            "select models.*, runs.dates, runs.last_date from mart.models as models left join ("
            " select model_version, count(*) as dates, max(as_of) as last_date from mart.runs"
            " where (as_of, run_id) in (select (as_of, run_id) from mart.publications) group by all"
            ") as runs using (model_version) order by trained_as_of desc, trained_at desc"
        )
        return warehouse.sql(query).to_arrow_table().to_pylist()


def promote(home: Path, version: str, at: datetime) -> date:
    """Puts a version in charge of what follows the newest publication, until another is trained; returns that date.

    It counts for runs that need not train (`--retrain weekly` or `never`). Raises `UsageError` for an unknown version.
    """
    with open_warehouse(home) as warehouse, transaction(warehouse):
        ensure_registry(warehouse)
        judged = "select count(*) from mart.models where model_version = $v and rankers is not null"
        if not scalar(warehouse, judged, v=version):
            raise UsageError(f"no model {version!r} that was judged; `almanac models` lists them")
        since = scalar(warehouse, "select max(as_of) from mart.publications")
        warehouse.execute(
            "update mart.models set promoted_at = $at, promoted_as_of = greatest($since, trained_as_of), demoted_at = null,"
            " demoted_because = null where model_version = $version",
            {"at": at, "since": since, "version": version},
        )
        return since


def _verdict(verdicts: dict[str, dict[str, Any]], incumbent: str | None) -> dict[str, Any]:
    return verdicts[incumbent if incumbent in verdicts else NOBODY]


def _incumbent(warehouse: DuckDBPyConnection, list_name: str, as_of: date) -> str | None:
    """The ranker of the newest published date before `as_of`."""
    if not exists(warehouse, "mart.gate"):
        return None
    newest = (
        "select arg_max(ranker, as_of) from mart.gate semi join mart.publications using (as_of, run_id)"
        " where list = $list and as_of < $as_of"
    )
    return scalar(warehouse, newest, list=list_name, as_of=as_of)


def _ndcg(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """List → ranker → NDCG pooled over the users of the holdouts."""
    pooled: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row["list_name"] for row in rows):
        for ranker in dict.fromkeys(row["ranker"] for row in rows):
            mine = [r for r in rows if (r["list_name"], r["ranker"], r["metric"]) == (name, ranker, "ndcg")]
            if users := sum(row["users"] for row in mine):
                pooled.setdefault(name, {})[ranker] = sum(row["value"] * row["users"] for row in mine) / users
    return pooled


def _replace(warehouse: DuckDBPyConnection, table: str, frame: pl.DataFrame, as_of: date) -> None:
    warehouse.register("frame", frame.rename({"list_name": "list"}).to_arrow())
    replace_partition(warehouse, table, "select * from frame", as_of=as_of)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

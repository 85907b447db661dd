"""The model's steps: judge it on holdouts, train it on everything, score every known user."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import torch
from tqdm import tqdm

from models.artifact import carry_over, pack, unpack
from models.baselines import BASELINES
from models.evaluation import evaluate
from models.gate import decide
from models.graph import Graph
from models.lists import Diversity, lists
from models.network import LISTS, learned_half_lives_days, served_lists
from models.network_ranker import NetworkRanker
from models.ranking import Ranker
from models.settings import MODEL, BaselineName, ModelSettings
from models.similar import similar_items
from models.training import fit
from tasks.graph import load_graph, node_ids
from tasks.sources import Source
from tasks.warehouse import exists, open_warehouse, replace_partition, scalar, transaction

NONE = -1
TEXT, NUMBER = pl.String, pl.Float64
METRICS = {"as_of": pl.Date, "run_id": TEXT, "list_name": TEXT, "ranker": TEXT, "holdout_date": pl.Date}
METRICS |= {"metric": TEXT, "k": pl.Int64, "value": NUMBER, "users": pl.Int64}
GATE = {"as_of": pl.Date, "run_id": TEXT, "list_name": TEXT, "ranker": TEXT, "blocked_by": TEXT}
GATE |= {"difference": NUMBER, "lower_bound": NUMBER, "why": TEXT}


def judge(
    home: Path,
    source: Source,
    as_of: date,
    settings: ModelSettings,
    baselines: tuple[BaselineName, ...],
    top_k: int,
    device: str,
    run_id: str,
) -> dict[str, Any]:
    """Measures model and baselines on the last holdouts before `as_of` and passes the gate for each list.

    Returns `settings`, `epochs` and `finishes` for training, and by list the chosen `rankers` with their
    `options` and the gate's sentence `why`.
    """
    graph = _graph(home, source, as_of, device)
    with tqdm(desc="holdouts", unit="step", disable=None) as bar:
        evaluation = evaluate(graph, source.horizon_days, source.repeats, settings, top_k, _shown(bar), baselines)
    with open_warehouse(home) as warehouse:
        decisions = [decide(evaluation, name, _incumbent(warehouse, name, as_of)) for name in LISTS]
        metrics = [asdict(row) | {"as_of": as_of, "run_id": run_id, "k": top_k} for row in evaluation.rows]
        with transaction(warehouse):
            measured = pl.DataFrame(metrics, METRICS).rename({"list_name": "list"})
            _append(warehouse, "scored.metrics", measured, as_of)
            gate = pl.DataFrame([asdict(decision) | {"as_of": as_of, "run_id": run_id} for decision in decisions], GATE)
            _append(warehouse, "scored.gate", gate.rename({"list_name": "list"}), as_of)
    return {
        "settings": evaluation.settings,
        "epochs": evaluation.epochs,
        "finishes": evaluation.finishes,
        "rankers": {decision.list_name: decision.ranker for decision in decisions},
        "options": {
            decision.list_name: evaluation.options[decision.list_name].get(decision.ranker) for decision in decisions
        },
        "why": {decision.list_name: decision.why for decision in decisions},
    }


def train(
    home: Path,
    source: Source,
    as_of: date,
    choice: dict[str, Any],
    device: str,
    run_id: str,
    trained_at: datetime,
    warm_start: bool = False,
) -> str:
    """Trains on everything before `as_of` as the holdouts chose; stores artifact and `mart.models` row, returns the version.

    warm_start: from the newest artifact of an earlier date, where there is one, instead of from random values.
    """
    graph = _graph(home, source, as_of, device)
    settings, epochs, names = choice["settings"], choice["epochs"], served_lists(source.repeats)
    with open_warehouse(home) as warehouse:
        _, items, entities = node_ids(warehouse)
        earlier = _earlier_artifact(warehouse, home, as_of) if warm_start else None
    start = (lambda network: carry_over(earlier, network, items, entities)) if earlier else None
    with tqdm(desc="training", unit="step", disable=None) as bar:
        network = fit(
            graph, source.horizon_days, settings, epochs=epochs, lists=names, progress=_shown(bar), start=start
        ).finished(choice["finishes"])
    partial = home / "models" / f"{run_id}.partial"
    partial.parent.mkdir(exist_ok=True)
    torch.save(pack(network) | {"item_ids": items, "entity_ids": entities, "trained_as_of": as_of.isoformat()}, partial)
    digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    version = f"{source.name}-{as_of}-{digest[:12]}"
    os.replace(partial, home / "models" / f"{version}.pt")
    row = {
        "model_version": version,
        "run_id": run_id,
        "trained_as_of": as_of,
        "trained_at": trained_at,
        "epochs": epochs,
        "finishes": json.dumps(choice["finishes"]),
        "artifact": f"models/{version}.pt",
        "artifact_hash": digest,
        "settings": settings.model_dump_json(),
        "learned_half_lives_days": json.dumps(learned_half_lives_days(network)),
    }
    with open_warehouse(home) as warehouse, transaction(warehouse):
        warehouse.register("frame", pl.DataFrame([row]).to_arrow())
        replace_partition(warehouse, "mart.models", "select * from frame", model_version=version)
    return version


def _earlier_artifact(warehouse, home: Path, as_of: date) -> dict[str, Any] | None:
    """The newest artifact trained as of an earlier date."""
    if not exists(warehouse, "mart.models"):
        return None
    newest = "select arg_max(artifact, trained_as_of) from mart.models where trained_as_of < $as_of"
    file = scalar(warehouse, newest, as_of=as_of)
    return torch.load(home / file, weights_only=True) if file else None


def score(
    home: Path,
    source: Source,
    as_of: date,
    top_k: int,
    choice: dict[str, Any],
    version: str,
    device: str,
    run_id: str,
    diversity: float = 0.0,
) -> dict[str, int]:
    """Writes `scored.recommendations` and `scored.item_recommendations` for every known user; returns rows by table.

    diversity: weight of unlikeness in picking the rows of a list (`models.diversity`), 0 to 1.
    """
    graph = _graph(home, source, as_of, device)
    network = unpack(torch.load(home / "models" / f"{version}.pt", weights_only=True)).to(device)
    almanac = NetworkRanker(network, graph)
    with open_warehouse(home) as warehouse:
        ids = node_ids(warehouse)
    unlike = Diversity(diversity, almanac.items.unit) if diversity else None
    frames = {}
    for name in tqdm(served_lists(source.repeats), desc="scoring", unit="list", disable=None):
        ranker = (
            almanac if choice["rankers"][name] == MODEL else _baseline(choice, name, graph, source, network.settings)
        )
        frames[name] = _list_frame(lists(ranker, graph, top_k, name, source.repeats, diversity=unlike), ids)
    frames = [frames.get(name, frames["discover"]).with_columns(list=pl.lit(name)) for name in LISTS]
    similar = _similar_frame(*similar_items(almanac, graph, top_k), ids[1])
    with open_warehouse(home) as warehouse:
        for table, frame in (("recommendations", pl.concat(frames)), ("item_recommendations", similar)):
            dated = frame.with_columns(as_of=pl.lit(as_of), run_id=pl.lit(run_id))
            warehouse.register("frame", dated.to_arrow())
            warehouse.execute(f"create or replace table scored.{table} as from frame")
        return {name: len(frame) for name, frame in zip(LISTS, frames, strict=True)} | {"similar items": len(similar)}


def _graph(home: Path, source: Source, as_of: date, device: str) -> Graph:
    torch.set_num_threads(1)  # sums depend on the number of threads
    with open_warehouse(home) as warehouse:
        return load_graph(warehouse, as_of, tuple(source.event_strength)).to(device)


def _baseline(choice: dict[str, Any], name: str, graph: Graph, source: Source, settings: ModelSettings) -> Ranker:
    baseline = BASELINES[choice["rankers"][name]]
    option = choice["options"][name] or baseline.options[0]
    return baseline.fit(graph, source.horizon_days, settings, option)(graph)


def _incumbent(warehouse, list_name: str, as_of: date) -> str | None:
    """The ranker of the newest published date before `as_of`."""
    if not exists(warehouse, "mart.gate"):
        return None
    newest = "select arg_max(ranker, as_of) from mart.gate where list = $list and as_of < $as_of"
    return scalar(warehouse, newest, list=list_name, as_of=as_of)


def _append(warehouse, table: str, frame: pl.DataFrame, as_of: date) -> None:
    warehouse.register("frame", frame.to_arrow())
    replace_partition(warehouse, table, "select * from frame", as_of=as_of)


def _list_frame(rows, ids: tuple[list[str], list[str], list[str]]) -> pl.DataFrame:
    users, items, entities = (pl.Series(values, dtype=pl.String) for values in ids)
    frame = pl.DataFrame(
        {
            "user_id": users.gather(rows.user_index.cpu().numpy()),
            "rank": rows.rank.cpu().numpy().astype("int32"),
            "item_id": items.gather(rows.item_index.cpu().numpy()),
            "score": rows.score.cpu().numpy(),
            "model": rows.ranker,
            "reason": rows.reason,
            "reason_item": rows.reason_item_index.cpu().numpy(),
            "reason_entity": rows.reason_entity_index.cpu().numpy(),
        }
    )
    item = pl.when(pl.col("reason_item") > NONE).then(pl.col("reason_item"))
    entity = pl.when(pl.col("reason_entity") > NONE).then(pl.col("reason_entity"))
    frame = frame.with_columns(reason_item=item, reason_entity=entity)
    cause = items.gather(frame["reason_item"]) if len(items) else frame["reason_item"].cast(pl.String)
    fact = entities.gather(frame["reason_entity"]) if len(entities) else frame["reason_entity"].cast(pl.String)
    return frame.drop("reason_item", "reason_entity").with_columns(
        reason_item_id=pl.Series(fact).zip_with(fact.is_not_null(), cause)
    )


def _similar_frame(similar: torch.Tensor, scores: torch.Tensor, item_ids: list[str]) -> pl.DataFrame:
    items = pl.Series(item_ids, dtype=pl.String)
    row, column = (index.cpu().numpy() for index in torch.nonzero(similar > NONE, as_tuple=True))
    return pl.DataFrame(
        {
            "item_id": items.gather(row),
            "rank": (column + 1).astype("int32"),
            "similar_item_id": items.gather(similar.cpu().numpy()[row, column]),
            "score": scores.cpu().numpy()[row, column],
        }
    )


def _shown(bar: tqdm):
    """A progress callable that moves a tqdm bar."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress

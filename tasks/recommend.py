"""The model's steps, from the folder of a date (`tasks.snapshots`): judge it on holdouts, train it on everything, score users.

None of them opens the warehouse, so the dates of a backfill take them side by side.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from datetime import date
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
from models.settings import MODEL, ModelSettings, RivalName
from models.similar import similar_items
from models.training import fit
from tasks.snapshots import Ids, is_whole, read_graph
from tasks.sources import Source
from tasks.warehouse import storing

NONE = -1
NOBODY = ""  # the incumbent where nothing was published yet


def judge(
    folder: Path,
    source: Source,
    settings: ModelSettings,
    baselines: tuple[RivalName, ...],
    top_k: int,
    device: str,
    shown: bool = True,
) -> None:
    """Measures model and baselines on the last holdouts before the folder's date; writes `judged.json`.

    It holds what to train (`settings`, `epochs`, `finishes`), the `rows` measured, the `options` of each baseline by list, and
    the gate's `verdicts`: list → incumbent → decision, since the incumbent is known only once the date before is published.
    """
    graph, _ = _graph(folder, device)
    with tqdm(desc="holdouts", unit="step", disable=None if shown else True) as bar:
        evaluation = evaluate(graph, source.horizon_days, source.repeats, settings, top_k, _moved(bar), baselines)
    incumbents = {name: [NOBODY, *evaluation.user_ndcg.get(name, {})] for name in LISTS}
    judged = {
        "settings": evaluation.settings.model_dump(mode="json"),
        "epochs": evaluation.epochs,
        "finishes": evaluation.finishes,
        "options": evaluation.options,
        "rows": [asdict(row) for row in evaluation.rows],
        "verdicts": {
            name: {before: asdict(decide(evaluation, name, before or None)) for before in incumbents[name]}
            for name in LISTS
        },
    }
    _write_json(folder / "judged.json", judged)


def train(
    folder: Path, source: Source, device: str, start: Path | None = None, parent: str | None = None, shown: bool = True
) -> None:
    """Trains on everything before the folder's date as `judge` chose; writes `model.pt`.

    start: an artifact of an earlier date to train on from, instead of from random values; parent: its version.
    """
    judged = read_judged(folder)
    settings, names = ModelSettings(**judged["settings"]), served_lists(source.repeats)
    graph, (_, items, entities) = _graph(folder, device)
    earlier = torch.load(start, weights_only=True) if start else None
    ids = items, entities, graph.context.series
    begin = (lambda network: carry_over(earlier, network, *ids)) if earlier else None
    with tqdm(desc="training", unit="step", disable=None if shown else True) as bar:
        network = fit(
            graph,
            source.horizon_days,
            settings,
            epochs=judged["epochs"],
            lists=names,
            progress=_moved(bar),
            start=begin,
        )
    packed = pack(network.finished(judged["finishes"])) | {"item_ids": items, "entity_ids": entities}
    packed |= {"trained_as_of": graph.as_of.isoformat(), "context_series": list(graph.context.series)}
    packed |= {"learned_half_lives_days": learned_half_lives_days(network), "parent": parent}
    packed |= {"finishes": judged["finishes"]}
    partial = folder / "model.partial"
    with storing(folder):
        torch.save(packed, partial)
        os.replace(partial, folder / "model.pt")


def score(
    folder: Path,
    source: Source,
    artifact: Path,
    rankers: dict[str, str],
    options: dict[str, Any],
    top_k: int,
    device: str,
    diversity: float = 0.0,
    shown: bool = True,
) -> dict[str, int]:
    """Writes `recommendations.parquet` and `item_recommendations.parquet` for every known user; returns rows by table.

    rankers: by list, what the gate chose; options: by list, what a baseline among them is fitted with; diversity: weight of
    unlikeness in picking the rows of a list (`models.diversity`), 0 to 1.
    """
    graph, ids = _graph(folder, device)
    network = unpack(torch.load(artifact, weights_only=True), ids[1], ids[2], graph.context.series).to(device)
    almanac = NetworkRanker(network, graph)
    unlike = Diversity(diversity, almanac.items.unit) if diversity else None
    frames = {}
    for name in tqdm(served_lists(source.repeats), desc="scoring", unit="list", disable=None if shown else True):
        ranker = almanac
        if rankers[name] != MODEL:
            ranker = _baseline(rankers[name], options.get(name), graph, source, network.settings)
        frames[name] = _list_frame(lists(ranker, graph, top_k, name, source.repeats, diversity=unlike), ids)
    frames = [frames.get(name, frames["discover"]).with_columns(list=pl.lit(name)) for name in LISTS]
    similar = _similar_frame(*similar_items(almanac, graph, top_k), ids[1])
    for table, frame in (("recommendations", pl.concat(frames)), ("item_recommendations", similar)):
        partial = folder / f"{table}.partial"
        with storing(folder):
            frame.write_parquet(partial)
            os.replace(partial, folder / f"{table}.parquet")
    return {name: len(frame) for name, frame in zip(LISTS, frames, strict=True)} | {"similar items": len(similar)}


def learn(
    folder: Path,
    source: Source,
    settings: ModelSettings,
    baselines: tuple[RivalName, ...],
    top_k: int,
    device: str,
    start: Path | None = None,
    parent: str | None = None,
) -> dict[str, float]:
    """`judge`, then `train`, in a process of its own, without what is there already; returns the seconds each took."""
    seconds = {}
    for step, file in (("judge", "judged.json"), ("train", "model.pt")):
        begun = time.monotonic()
        if is_whole(folder / file):
            continue
        if step == "judge":
            judge(folder, source, settings, baselines, top_k, device, shown=False)
        else:
            train(folder, source, device, start, parent, shown=False)
        seconds[step] = round(time.monotonic() - begun, 3)
    return seconds


def read_judged(folder: Path) -> dict[str, Any]:
    """What `judge` wrote; dates of holdouts are dates again."""
    judged = json.loads((folder / "judged.json").read_text())
    for row in judged["rows"]:
        row["holdout_date"] = date.fromisoformat(row["holdout_date"])
    return judged


def _graph(folder: Path, device: str) -> tuple[Graph, Ids]:
    torch.set_num_threads(1)  # sums depend on the number of threads
    stored = read_graph(folder / "graph.pt")
    return stored["graph"].to(device), stored["ids"]


def _baseline(name: str, option: Any, graph: Graph, source: Source, settings: ModelSettings) -> Ranker:
    baseline = BASELINES[name]
    return baseline.fit(graph, source.horizon_days, settings, option or baseline.options[0])(graph)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_suffix(".partial")
    with storing(file.parent):
        partial.write_text(json.dumps(content, default=str))
        os.replace(partial, file)


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


def _moved(bar: tqdm):
    """A progress callable that moves a tqdm bar."""

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress

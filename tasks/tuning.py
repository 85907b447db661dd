"""Tuned baselines, kept between runs: a search takes minutes and what it finds holds for weeks."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.baselines import BASELINES, Parameters
from models.graph import Graph
from models.settings import ModelSettings
from models.tuning import Tuned, tune
from tasks.processes import side_by_side
from tasks.runs import digest


def tuned(
    home: Path,
    source_name: str,
    key: str,
    graph: Graph,
    horizon_days: int,
    repeats: bool,
    names: Sequence[str],
    settings: ModelSettings,
    top_k: int = 20,
    processes: int = 1,
) -> dict[str, dict[str, Parameters]]:
    """What each baseline is best fitted with: baseline → list → parameters, from the horizons before the graph's date.

    What was tuned for the same `key` (of the graph's content, say its snapshot), date and settings is read from
    `<home>/backtests/tuning.json`, and each baseline is written there when done, so a search cut short goes on. One process
    at a time may tune for a home. Baselines whose catalogue would be too large are left out.
    """
    path = home / "backtests" / "tuning.json"
    known: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    missing, options = [], {}
    for name in names:
        if graph.item_count > BASELINES[name].most_items:
            continue
        identity = {
            "source": source_name,
            "key": key,
            "as_of": graph.as_of.isoformat(),
            "baseline": name,
            "horizon_days": horizon_days,
            "repeats": repeats,
            "top_k": top_k,
            "searched": _searched(name, settings),
        }
        found = next((record for record in known if identity.items() <= record.items()), None)
        if found:
            options[name] = found["options"]
        else:
            missing.append(identity)
    with side_by_side(processes) as pool:
        running = {
            pool.submit(_tune, graph, horizon_days, repeats, identity["baseline"], settings, top_k): identity
            for identity in missing
        }
        for done in tqdm(as_completed(running), total=len(running), desc="tuning", unit="baseline", disable=None):
            identity = running[done]
            known.append(identity | asdict(done.result()))
            options[identity["baseline"]] = known[-1]["options"]
            _write(path, known)
    return options


def _tune(graph: Graph, horizon_days: int, repeats: bool, name: str, settings: ModelSettings, top_k: int) -> Tuned:
    torch.set_num_threads(1)  # sums depend on the number of threads
    return tune(graph, horizon_days, repeats, name, settings, k=top_k)


def _searched(name: str, settings: ModelSettings) -> str:
    """Changes with what is searched for a baseline, and where it starts."""
    baseline = BASELINES[name]
    searched = [baseline.default, baseline.options, dict(baseline.space), settings.model_dump(mode="json")]
    return digest(*searched)


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(records, indent=1))
    os.replace(partial, path)

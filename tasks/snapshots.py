"""The folder of a date in progress, `<home>/work/<as_of>-<key>`: what processes without the warehouse need, and give back.

The key names all that the results depend on, so what a killed run had learned is not learned again.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import date
from pathlib import Path
from pickle import UnpicklingError

import torch

from models.graph import Context, Edges, Graph, Interactions
from tasks.graph import load_graph, node_ids
from tasks.runs import code_version, digest
from tasks.sources import Source
from tasks.transform import GRAPH, STAGING
from tasks.warehouse import open_warehouse, storing

KINDS = [Graph, Interactions, Edges, Context, date]  # what a stored graph may hold: nothing else is loaded
TABLES = (*(f"staging.{name}" for name in STAGING), *(f"graph.{name}" for name in GRAPH))
Ids = tuple[list[str], list[str], list[str]]


def folder_of(home: Path, source: Source, as_of: date, *parts: object) -> Path:
    """Where the date is worked on; parts: what else its results depend on, its data among them."""
    settings = source.model_dump_json(exclude={"gate", "health"})
    return home / "work" / f"{as_of}-{digest(settings, code_version(), *parts)}"


def store(home: Path, source: Source, as_of: date, folder: Path) -> None:
    """Keeps `staging.*` and `graph.*` as they are now, for `restore`, and the graph with the ids of its nodes."""
    with storing(home), open_warehouse(home) as warehouse:
        folder.mkdir(parents=True, exist_ok=True)
        for table in TABLES:
            warehouse.sql(f"from {table}").write_parquet(str(folder / f"{table}.parquet"))
        write_graph(
            folder / "graph.pt", load_graph(warehouse, as_of, tuple(source.event_strength)), node_ids(warehouse)
        )


def restore(home: Path, folder: Path) -> None:
    """Makes `staging.*` and `graph.*` what they were at `store`, after another date was prepared."""
    with open_warehouse(home) as warehouse:
        for table in TABLES:
            file = str(folder / f"{table}.parquet")
            warehouse.execute(f"create or replace table {table} as from read_parquet($file)", {"file": file})


def write_graph(file: Path, graph: Graph, ids: Ids, **more: object) -> None:
    """A graph as of a date, with the ids of its users, items and entities; whole or not at all."""
    partial = file.with_suffix(".partial")
    torch.save({"graph": graph, "ids": ids, **more}, partial)
    os.replace(partial, file)


def read_graph(file: Path) -> dict:
    """What `write_graph` stored: graph, ids and more."""
    with torch.serialization.safe_globals(KINDS):
        return torch.load(file, weights_only=True)


def is_whole(file: Path) -> bool:
    """Whether a `.json` or `.pt` file is there and can be read; what a killed run left is used again only then."""
    try:
        json.loads(file.read_text()) if file.suffix == ".json" else torch.load(file, weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError):
        return False
    return True


def discard(home: Path, as_of: date | None = None) -> None:
    """Removes the folders of a date, or of all."""
    for folder in (home / "work").glob(f"{as_of or ''}*"):
        shutil.rmtree(folder)

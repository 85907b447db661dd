"""A copy of a published home: the lists of its newest date are made anew, from any scores, and judged by the gate."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from models.artifact import carry_over, unpack
from models.baselines import BASELINES
from models.graph import Graph
from models.lists import Diversity, lists
from models.network import LISTS, Network, served_lists
from models.network_ranker import NetworkRanker
from models.ranking import Ranker
from models.settings import MODEL, ModelSettings
from models.training import fit
from tasks.audit import audit
from tasks.errors import AuditError, GateHeld
from tasks.graph import load_graph, node_ids
from tasks.sources import Source, load_source
from tasks.warehouse import open_warehouse, read_home

USERS_PER_CHUNK = 1024
RUN = "tried"
Scores = dict[str, Tensor]  # served list → float32 [U, I]


@dataclass(frozen=True)
class Given:
    """Scores made elsewhere, under a ranker's name."""

    name: str
    given: Scores

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        return self.given[list_name][users].clone()

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        none = torch.full_like(items, -1)
        return ["taste"] * len(items), none, none


@dataclass(frozen=True)
class Bench:
    """The copied home, and what its newest date was made from."""

    home: Path
    source: Source
    as_of: date
    top_k: int
    rankers: dict[str, str]  # list → what the gate chose
    model: dict[str, Any]  # its row in mart.models
    graph: Graph
    ids: tuple[list[str], list[str], list[str]]
    scores: Scores

    @property
    def served(self) -> tuple[str, ...]:
        return served_lists(self.source.repeats)

    @property
    def _known(self) -> tuple[list[str], list[str], tuple[str, ...]]:
        """Items, entities and dated series of the graph."""
        return *self.ids[1:], self.graph.context.series

    def network(self, version: str | None = None) -> Network:
        """The model on record, or another version, with the graph's items and series."""
        return unpack(self.packed(version), *self._known)

    def packed(self, version: str | None = None) -> dict[str, Any]:
        file = self.home / "models" / f"{version or self.model['model_version']}.pt"
        return torch.load(file, weights_only=True)

    def train(self, warm: bool = False, epochs: int | None = None, **changes: Any) -> Network:
        """The model of the graph, trained anew with the choices on record but for those named here."""
        settings = ModelSettings(**json.loads(self.model["settings"])).model_copy(update=changes)
        start = (lambda network: carry_over(self.packed(), network, *self._known)) if warm else None
        passes = epochs or int(self.model["epochs"])
        network = fit(self.graph, self.source.horizon_days, settings, epochs=passes, lists=self.served, start=start)
        return network.finished(self.packed()["finishes"])

    def baseline(self, name: str) -> Ranker:
        kind, settings = BASELINES[name], ModelSettings(**json.loads(self.model["settings"]))
        return kind.fit(self.graph, self.source.horizon_days, settings, kind.options[0])(self.graph)

    def all_scores(self, ranker: Ranker) -> Scores:
        """Of every user and item."""
        users = torch.arange(self.graph.user_count).split(USERS_PER_CHUNK)
        return {name: torch.cat([ranker.scores(part, name) for part in users]) for name in self.served}

    def write(
        self, scores: Scores, top_k: int | None = None, ranker: str | None = None, diversity: float = 0.0
    ) -> None:
        """Makes the lists of these scores `scored.recommendations`, under the chosen ranker's name or another."""
        unlike = Diversity(diversity, NetworkRanker(self.network(), self.graph).items.unit) if diversity else None
        users, items = (pl.Series(ids, dtype=pl.String) for ids in self.ids[:2])
        frames = {}
        for name in self.served:
            made = Given(ranker or self.rankers[name], scores)
            rows = lists(made, self.graph, top_k or self.top_k, name, self.source.repeats, diversity=unlike)
            columns = {"user_id": users.gather(rows.user_index.numpy()), "rank": rows.rank.numpy().astype("int32")}
            columns |= {"item_id": items.gather(rows.item_index.numpy()), "score": rows.score.numpy()}
            frames[name] = pl.DataFrame(columns | {"model": rows.ranker, "reason": rows.reason})
        frame = pl.concat(frames.get(name, frames["discover"]).with_columns(list=pl.lit(name)) for name in LISTS)
        dated = frame.with_columns(as_of=pl.lit(self.as_of), reason_item_id=pl.lit(None, pl.String), run_id=pl.lit(RUN))
        with open_warehouse(self.home) as warehouse:
            warehouse.register("frame", dated.to_arrow())
            warehouse.execute("create or replace table scored.recommendations as from frame")

    def execute(self, *statements: str) -> None:
        """SQL in which {as_of} stands for the date and {before} for the newest earlier publication."""
        with open_warehouse(self.home) as warehouse:
            before = warehouse.execute("select max(as_of) from mart.recommendations where as_of < $1", [self.as_of])
            dates = {"as_of": f"date '{self.as_of}'", "before": f"date '{before.fetchall()[0][0]}'"}
            for statement in statements:
                warehouse.execute(statement.format(**dates))

    def reload(self) -> Bench:
        """The bench with the graph as it is now in the warehouse; its scores are those of before."""
        with open_warehouse(self.home) as warehouse:
            graph = load_graph(warehouse, self.as_of, tuple(self.source.event_strength))
            return replace(self, graph=graph, ids=node_ids(warehouse))

    def restore(self) -> None:
        """The warehouse as it was copied."""
        shutil.copyfile(self.home / "pristine.duckdb", self.home / "warehouse.duckdb")
        (self.home / "warehouse.duckdb.wal").unlink(missing_ok=True)

    def judge(self, top_k: int | None = None) -> list[str]:
        """The rules by which the gate keeps `scored.recommendations` back, each with what was measured; empty = published."""
        try:
            audit(self.home, self.source, self.as_of, top_k or self.top_k, RUN)
        except (AuditError, GateHeld):
            broken = "select rule, coalesce(observed, failed || ' rows') from mart.quality where run_id = $1"
            broken += " and not success and severity = 'critical' order by all"
            with open_warehouse(self.home) as warehouse:
                return [": ".join(row) for row in warehouse.execute(broken, [RUN]).fetchall()]
        return []


def prepare(published: Path, scratch: Path) -> Bench:
    """Copies the home's warehouse and models, and scores everything once."""
    torch.set_num_threads(1)  # as a run does
    home = scratch / "home"
    shutil.copytree(published / "models", home / "models")
    shutil.copyfile(published / "home.json", home / "home.json")
    shutil.copyfile(published / "warehouse.duckdb", home / "warehouse.duckdb")
    source = load_source(read_home(home)["source"])
    with open_warehouse(home) as warehouse:
        as_of, top_k = warehouse.execute("select max(as_of), max(rank) from scored.recommendations").fetchall()[0]
        query = "select models.* from mart.models join mart.runs using (model_version) where runs.as_of = $1"
        model = warehouse.sql(f"{query} order by runs.started_at desc limit 1", params=[as_of]).to_arrow_table()
        query = "select list, ranker from scored.gate where as_of = $1"
        rankers = dict(warehouse.execute(query, [as_of]).fetchall())
        graph, ids = load_graph(warehouse, as_of, tuple(source.event_strength)), node_ids(warehouse)
        warehouse.execute("create table scored.sound as from scored.recommendations")
    shutil.copyfile(home / "warehouse.duckdb", home / "pristine.duckdb")
    bench = Bench(home, source, as_of, top_k, rankers, model.to_pylist()[0], graph, ids, {})
    scores = bench.all_scores(NetworkRanker(bench.network(), graph))
    for name in bench.served:
        if rankers[name] != MODEL:
            scores[name] = bench.all_scores(bench.baseline(rankers[name]))[name]
    return replace(bench, scores=scores)

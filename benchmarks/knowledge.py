"""What knowledge and friends are worth: NDCG@20 with them, without them, and with the same edges between shuffled nodes.

Run: python -m benchmarks.knowledge [movielens | lastfm-2k] [network …] (needs ALMANAC_DATA). Networks are those of
models.networks, none = Almanac's own. One fit per origin and variant, on what was known before the origin (Almanac's own:
two passes); users with history who did something new to them within the horizon. A gain is the graph's only where shuffling
removes it. Intervals: 95 %, paired by user, one user's origins being one cluster.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from models.baselines import BASELINES
from models.evaluation import MOST_USERS, holdout, metrics
from models.graph import Edges, Graph
from models.metrics import ONE_SIDED_90, paired_difference
from models.network import served_lists
from models.network_ranker import NetworkRanker
from models.ranking import Ranker
from models.settings import MODEL, ModelSettings
from models.training import fit
from tasks.graph import load_graph
from tasks.ingest import land, load
from tasks.sources import load_source
from tasks.transform import build_graph, build_staging
from tasks.warehouse import open_warehouse

EPOCHS = 2
TWO_SIDED_95 = 1.96
INPUTS = {  # as of, origins counted back from it in horizons, folders of input and knowledge graph
    "movielens": (date(2018, 9, 1), range(1, 9), "ml-latest-small", "movielens-kg"),
    "lastfm-2k": (date(2011, 4, 15), range(1, 4), "lastfm-2k", "lastfm-2k-kg"),
}
KNOWLEDGE = {"movielens": ("is", "director", "writer", "star", "genre", "country", "language", "rating")}


HALF_LIFE = 13.0  # horizons, of the networks; Almanac's own learns its own


def main(names: list[str]) -> None:
    """Prints one table per source and network."""
    torch.set_num_threads(1)
    for name in [name for name in names if name in INPUTS] or list(INPUTS):
        for model in [model for model in names if model not in INPUTS] or [MODEL]:
            measure(name, model)


def ranker_of(model: str, graph: Graph, horizon_days: int, lists: tuple[str, ...]) -> Ranker:
    """The model learned from the graph, as of its date."""
    if model == MODEL:
        return NetworkRanker(fit(graph, horizon_days, ModelSettings(), epochs=EPOCHS, lists=lists), graph)
    return BASELINES[model].fit(graph, horizon_days, ModelSettings(), {"half_life": HALF_LIFE, "head": 0.0})(graph)


def measure(name: str, model: str) -> None:
    as_of, origins, files, knowledge = INPUTS[name]
    source, data = load_source(name), Path(os.environ["ALMANAC_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        home, files_there = Path(folder, "home"), Path(folder, "input")
        shutil.copytree(data / files, files_there)
        shutil.copytree(data / knowledge, files_there / "kg")
        home.mkdir()
        land(home, source, files_there, as_of)
        load(home, source.model_copy(update={"max_reject_share": 1.0}), as_of, datetime.now(UTC), "benchmark")
        build_staging(home, source, as_of)
        build_graph(home, source, as_of)
        with open_warehouse(home) as warehouse:
            graph = load_graph(warehouse, as_of, tuple(source.event_strength))
    lists = served_lists(source.repeats)
    found: dict[str, dict[str, list[torch.Tensor]]] = {}
    users: dict[str, list[torch.Tensor]] = {list_name: [] for list_name in lists}
    variants = _variants(name, graph)
    for back in tqdm([number * source.horizon_days for number in origins], desc=name, disable=None):
        judged = holdout(graph, source.horizon_days, back, MOST_USERS)
        for list_name in lists:
            users[list_name].append(judged.users[list_name])
        for variant, change in variants.items():
            now = change(judged.graph)
            ranker = ranker_of(model, now, source.horizon_days, lists)
            for list_name in lists:
                ndcg = metrics(ranker, judged, list_name, 20)["ndcg"]
                found.setdefault(list_name, {}).setdefault(variant, []).append(ndcg)
    print(f"\n{name}, {model}: {len(origins)} origins of {source.horizon_days} days up to {as_of}\n")
    print("| list | users | graph | NDCG@20 | difference to the first |\n| --- | --- | --- | --- | --- |")
    for list_name, by_variant in found.items():
        everyone = torch.cat(users[list_name])
        first = torch.cat(next(iter(by_variant.values())))
        for variant, parts in by_variant.items():
            values = torch.cat(parts)
            mean, bound = paired_difference(values, first, everyone)
            spread = TWO_SIDED_95 * (mean - bound) / ONE_SIDED_90
            told = f"{mean:+.4f} ± {spread:.4f}" if values is not first and variant != next(iter(by_variant)) else ""
            print(f"| {list_name} | {len(values):,} | {variant} | {values.mean():.4f} | {told} |", flush=True)


def _variants(name: str, graph: Graph) -> dict[str, Callable[[Graph], Graph]]:
    """Ways to change a graph, by what is left of it; the first is the graph as it is."""
    if name == "movielens":
        knowledge = KNOWLEDGE[name]
        return {
            "with its knowledge graph": lambda now: now,
            "without it (genres, decades and tags stay)": lambda now: _without(now, knowledge),
            "knowledge graph shuffled": lambda now: _shuffled(now, knowledge),
        }
    return {
        "with friends and facts": lambda now: now,
        "without friends": lambda now: replace(now, user_users=_kept(now.user_users, ())),
        "friends shuffled": lambda now: replace(now, user_users=_permuted(now.user_users, now.user_count, None)),
        "without facts": lambda now: _without(now, graph.relations),
        "facts shuffled": lambda now: _shuffled(now, tuple(range(len(graph.relations)))),
        "without both": lambda now: replace(_without(now, graph.relations), user_users=_kept(now.user_users, ())),
    }


def _without(graph: Graph, relations: tuple[str, ...]) -> Graph:
    """No item, user or entity edge of these relations."""
    kept = tuple(index for index, relation in enumerate(graph.relations) if relation not in relations)
    kinds = ("item_entities", "user_entities", "entity_entities")
    return replace(graph, **{kind: _kept(getattr(graph, kind), kept) for kind in kinds})


def _kept(edges: Edges, relations: tuple[int, ...]) -> Edges:
    keep = torch.isin(edges.relation_index, torch.tensor(relations, dtype=torch.int64))
    return Edges(**{name: column[keep] for name, column in vars(edges).items()})


def _shuffled(graph: Graph, relations: tuple[str, ...] | tuple[int, ...]) -> Graph:
    """The items' edges of these relations handed to other items, each item's as a whole."""
    chosen = [index for index, relation in enumerate(graph.relations) if relation in relations or index in relations]
    return replace(graph, item_entities=_permuted(graph.item_entities, graph.item_count, chosen))


def _permuted(edges: Edges, source_count: int, relations: list[int] | None) -> Edges:
    """The sources that have such edges trade them: degrees and times of edges stay, who has them does not."""
    mine = torch.ones_like(edges.source_index, dtype=torch.bool)
    if relations is not None:
        mine = torch.isin(edges.relation_index, torch.tensor(relations))
    sources = torch.unique(edges.source_index[mine])
    trade = torch.arange(source_count)
    trade[sources] = sources[torch.randperm(len(sources), generator=torch.Generator().manual_seed(0))]
    return replace(edges, source_index=torch.where(mine, trade[edges.source_index], edges.source_index))


if __name__ == "__main__":
    main(sys.argv[1:])

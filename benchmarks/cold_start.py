"""Lists for users and items on their first days: networks against what is popular, and against content alone.

Run: python -m benchmarks.cold_start [ml-100k] [lastfm-2k] [--fresh] (needs ALMANAC_DATA; minutes). Everything is learned
before an origin, then meets users new in the horizon after it, of whose events it is shown none, one or a few and must
foresee the others (the same ones, whatever is shown); and items that nobody had, or whose events were withheld. Items are
ranked among their like: every list has room for them. Differences: paired by user, 95 %, one user's origins one cluster.
Finished rows are kept in .almanac-bench/cold_start.jsonl.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import fmean
from time import process_time
from typing import Any

import torch

from benchmarks.backtests import HOMES
from benchmarks.cold_scenes import SOURCES, Case, Source, read, scene
from benchmarks.kept_rows import Row, add_rows, read_rows
from models.baselines import BASELINES, segment_popularity
from models.graph import Graph
from models.metrics import ONE_SIDED_90, hits, ndcg, paired_difference
from models.network_ranker import NetworkRanker
from models.networks.content import fit_content
from models.networks.newcomers import with_adaptation
from models.networks.training import fit_network
from models.ranking import Ranker, top_k
from models.settings import ModelSettings
from models.training import fit

K, TWO_SIDED_95 = 20, 1.96
ID_DROPOUT = 0.3
REFERENCES = ("segment popularity", "content only", "with ID dropout")
KEPT = HOMES / "cold_start.jsonl"
Refresh = Callable[[Graph], Ranker]


def contenders(graph: Graph, source: Source) -> Iterator[tuple[str, Refresh]]:
    """Models learned from the graph, one after the other: some build on the one before."""
    settings, days = ModelSettings(), source.horizon_days
    yield "segment popularity", segment_popularity
    yield "content only", fit_content(graph, days, settings)
    yield "item_knn", BASELINES["item_knn"].fit(graph, days, settings, BASELINES["item_knn"].options[0])
    yield "almanac", partial(NetworkRanker, fit(graph, days, settings, epochs=2, lists=("discover",)))
    told = {"name": "lightgcn_ahead", "user_ids": False} | source.network
    yield "lightgcn_ahead", fit_network(graph, source.learn_days, settings, source.half_life, **told)
    network: Any = fit_network(graph, source.learn_days, settings, source.half_life, id_dropout=ID_DROPOUT, **told)
    yield "with ID dropout", network
    yield "the same, users' facts and friends unknown", lambda now: network(_strangers(now))
    yield "with ID dropout and adaptation", with_adaptation(network, graph, rounds=source.rounds)


def _strangers(graph: Graph) -> Graph:
    nothing = slice(0)
    cut = {
        kind: type(edges)(**{name: column[nothing] for name, column in vars(edges).items()})
        for kind, edges in (("user_entities", graph.user_entities), ("user_users", graph.user_users))
    }
    return replace(graph, user_features=torch.zeros_like(graph.user_features), **cut)


def judge(ranker: Ranker, case: Case) -> tuple[list[int], list[float]]:
    """The users, and NDCG@K of each."""
    users = torch.unique(case.user)
    items, _ = top_k(ranker, case.seen, users, K, "discover", repeats=False, eligible_items=case.eligible)
    return users.tolist(), ndcg(*hits(items, users, case.user, case.item, case.seen.item_count)).tolist()


def measure(name: str, kept: list[Row]) -> None:
    """Adds to the file, origin by origin, a row for each model and stratum that is not there yet."""
    source = SOURCES[name]
    missing = [back for back in source.origins if not any((row["data"], row["back"]) == (name, back) for row in kept)]
    if not missing:
        return
    graph = read(name)
    for back in missing:
        trained, found = scene(graph, back * source.horizon_days, source)
        cases, rows, start = list(found), [], process_time()
        for model, refresh in contenders(trained, source):
            seconds = process_time() - start
            for case in cases:
                users, values = judge(refresh(case.shown), case)
                row = {"data": name, "back": back, "model": model, "stratum": case.stratum, "seconds": seconds}
                rows.append(row | {"users": users, "ndcg": values})
            print(name, trained.as_of, model, f"{seconds:.1f} s", file=sys.stderr, flush=True)
            start = process_time()
        kept += rows
        add_rows(KEPT, rows)


def table(rows: list[Row]) -> str:
    """Markdown; the best of a stratum is in bold."""
    lines = [
        f"| data | stratum | users | model | NDCG@{K} | minus {' | minus '.join(REFERENCES)} | CPU s a fit |",
        "| --- " * 9 + "|",
    ]
    for data, stratum in dict.fromkeys((row["data"], row["stratum"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["stratum"]) == (data, stratum)]
        values = {
            model: torch.tensor([value for row in mine if row["model"] == model for value in row["ndcg"]])
            for model in dict.fromkeys(row["model"] for row in mine)
        }
        users = torch.tensor([user for row in mine if row["model"] == REFERENCES[0] for user in row["users"]])
        best = max(values, key=lambda model: float(values[model].mean()))
        for model, one in values.items():
            told = [_difference(one, values[other], users) if model != other else "" for other in REFERENCES]
            mean = f"**{one.mean():.4f}**" if model == best else f"{one.mean():.4f}"
            seconds = fmean(row["seconds"] for row in mine if row["model"] == model)
            lines.append(f"| {' | '.join([data, stratum, str(len(one)), model, mean, *told, f'{seconds:.1f}'])} |")
    return "\n".join(lines)


def _difference(one: torch.Tensor, other: torch.Tensor, users: torch.Tensor) -> str:
    mean, bound = paired_difference(one, other, users)
    return f"{mean:+.4f} ± {TWO_SIDED_95 * (mean - bound) / ONE_SIDED_90:.4f}"


def main(arguments: list[str]) -> None:
    """Measures what is not yet measured, and prints the table."""
    torch.set_num_threads(1)
    chosen = [name for name in SOURCES if name in arguments] or list(SOURCES)
    kept = read_rows(KEPT, chosen if "--fresh" in arguments else ())
    for name in chosen:
        measure(name, kept)
    print(table([row for row in kept if row["data"] in chosen]))


if __name__ == "__main__":
    main(sys.argv[1:])

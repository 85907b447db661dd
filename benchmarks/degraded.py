"""What the publish gate lets through: degraded lists that it must hold back, harmless ones that it must not.

Run: python -m benchmarks.degraded [HOME ...] with homes that Almanac published three or more dates into; without one, three
dates of Online Retail II and of MovieLens-100K (below ALMANAC_DATA) are published below `.almanac-bench/`. No home is changed:
every kind is tried in a copy. The exit code is 1 where a kind is not judged as it should be.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harmless import HARMLESS
from benchmarks.relisted import Bench, prepare
from flows.configuration import BackfillConfig
from flows.terminal import prepare_prefect
from models.baselines import popularity_scores, segment_popularity
from models.network_ranker import NetworkRanker
from models.ranking import Ranker

Kind = Callable[[Bench], None]
HOMES = Path(".almanac-bench", "gate")
PUBLISHED = {"online-retail-ii": ("online-retail-ii", date(2011, 9, 1)), "movielens": ("ml-100k", date(1998, 3, 16))}
ROWS = "scored.recommendations"
MIDDLE = f"(select median(user_id) from (select distinct user_id from {ROWS}))"


def dice(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(change: Callable[[Bench, Tensor], Tensor]) -> Kind:
    """Lists of changed scores: whole, live and unseen, so that only what they show can tell."""
    return lambda bench: bench.write({name: change(bench, scores) for name, scores in bench.scores.items()})


def of(ranker: Callable[[Bench], Ranker]) -> Kind:
    """Lists of another ranker under the name of the chosen one."""
    return lambda bench: bench.write(bench.all_scores(ranker(bench)))


def sql(*statements: str) -> Kind:
    return lambda bench: bench.execute(*statements)


def shuffled_rows(bench: Bench, scores: Tensor, share: float = 1.0) -> Tensor:
    row, some = torch.arange(len(scores)), torch.randperm(len(scores), generator=dice())[: int(len(scores) * share)]
    row[some] = some[torch.randperm(len(some), generator=dice(2))]
    return scores[row]


def shuffled_columns(bench: Bench, scores: Tensor) -> Tensor:
    return scores[:, torch.randperm(scores.shape[1], generator=dice())]


def only_popular(bench: Bench, scores: Tensor) -> Tensor:
    popular = popularity_scores(bench.graph, 8.0 * bench.source.horizon_days)
    left_out = torch.ones(scores.shape[1], dtype=torch.bool)
    left_out[popular.topk(min(50, len(popular) // 3)).indices] = False
    return scores.masked_fill(left_out, -1e6)


def all_time(bench: Bench, scores: Tensor) -> Tensor:
    return popularity_scores(bench.graph, 1e9).expand_as(scores)


def stale(weeks: int) -> Callable[[Bench], Ranker]:
    """A scorer that has not heard of the last weeks; what was bought in them is still left out of discover."""

    def ranker(bench: Bench) -> Ranker:
        events, days = bench.graph.interactions, 7 * weeks
        old = events.where(events.age_days > days)
        old = replace(old, age_days=old.age_days - days)
        then = replace(bench.graph, interactions=old, as_of=bench.as_of - timedelta(days=days))
        return NetworkRanker(bench.network(), then)

    return ranker


def of_shuffled_events(bench: Bench) -> Ranker:
    events = bench.graph.interactions
    items = events.item_index[torch.randperm(len(events.item_index), generator=dice())]
    network = replace(bench, graph=replace(bench.graph, interactions=replace(events, item_index=items))).train()
    return NetworkRanker(network, bench.graph)


def of_random_weights(bench: Bench) -> Ranker:
    network = bench.network()
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(torch.randn(weights.shape, generator=dice()))
    return NetworkRanker(network, bench.graph)


def without_first(bench: Bench) -> None:
    bench.write(bench.scores, bench.top_k + 1)
    bench.execute(
        f"delete from {ROWS} where rank = 1",
        f"update {ROWS} set rank = rank - 1",
        f"delete from {ROWS} where rank > {bench.top_k}",
    )


def backwards(bench: Bench) -> None:
    bench.write(bench.scores)
    bench.execute(
        f"create or replace table {ROWS} as select * replace ("
        "cast(1 + count(*) over (partition by list, user_id) - rank as integer) as rank,"
        " max(score) over (partition by list, user_id) + min(score) over (partition by list, user_id) - score as score"
        f") from {ROWS}"
    )


ONE_ITEM = f"(select min(item_id) from {ROWS} where rank = 2)"
BEFORE = "from mart.recommendations where as_of = {before}"
USERS = f"(select user_id, row_number() over (order by user_id) as place from (select distinct user_id from {ROWS}))"
DEGRADED: dict[str, Kind] = {
    "random items": changed(lambda bench, scores: torch.rand(scores.shape, generator=dice())),
    "inverted scores": changed(lambda bench, scores: -scores),
    "user ids shuffled": changed(shuffled_rows),
    "half of the user ids shuffled": changed(lambda bench, scores: shuffled_rows(bench, scores, 0.5)),
    "user ids off by one": changed(lambda bench, scores: scores.roll(1, 0)),
    "one user's list for everybody": changed(lambda bench, scores: scores[:1].expand_as(scores)),
    "item ids shuffled": changed(shuffled_columns),
    "item ids off by one": changed(lambda bench, scores: scores.roll(1, 1)),
    "popularity for everybody": of(lambda bench: segment_popularity(bench.graph)),
    "all-time popularity for everybody": changed(all_time),
    "only the 50 most popular items": changed(only_popular),
    "constant scores": changed(lambda bench, scores: torch.zeros_like(scores)),
    "a graph 4 weeks old": of(stale(4)),
    "a graph 8 weeks old": of(stale(8)),
    "a model trained on shuffled events": of(of_shuffled_events),
    "random weights": of(of_random_weights),
    "the first item left out": without_first,
    "ranks reversed, scores sorted": backwards,
    "ranks reversed": sql(f"update {ROWS} set score = -score"),
    "one score for all rows": sql(f"update {ROWS} set score = 1"),
    "NaN scores": sql(f"update {ROWS} set score = 'nan' where rank = 3"),
    "infinite scores": sql(f"update {ROWS} set score = 'inf' where rank = 1 and user_id < {MIDDLE}"),
    "half of the users missing": sql(f"delete from {ROWS} where user_id < {MIDDLE}"),
    "half of the rows missing": sql(f"delete from {ROWS} where rank % 2 = 0"),
    "the first item deleted": sql(f"delete from {ROWS} where rank = 1"),
    "one list empty": sql(f"delete from {ROWS} where list = 'discover'"),
    "duplicates": sql(f"insert into {ROWS} by name from {ROWS} where list = 'for_you' and rank = 1"),
    "an item twice": sql(f"update {ROWS} set item_id = {ONE_ITEM} where rank in (1, 2)"),
    "items of another source": sql(f"update {ROWS} set item_id = 'other-' || item_id"),
    "item ids cut": sql(f"update {ROWS} set item_id = item_id[1:len(item_id) - 1]"),
    "user ids cut": sql(f"update {ROWS} set user_id = user_id[1:len(user_id) - 1]"),
    "retired items": sql("update graph.item_nodes set retired_age_days = 5 where item_index % 10 = 0"),
    "seen items in discover": sql(
        "insert into graph.interaction_edges by name select edges.* replace (items.item_index as item_index) from"
        " (select distinct on (user_index) * from graph.interaction_edges) as edges join graph.user_nodes using (user_index)"
        f" join {ROWS} as scored using (user_id) join graph.item_nodes as items on items.item_id = scored.item_id"
        " where scored.list = 'discover' and scored.rank = 5"
    ),
    "empty reasons": sql(f"update {ROWS} set reason = ''"),
    "whole rows dealt to the next user": sql(
        f"create or replace table {ROWS} as select scored.* replace (next.user_id as user_id) from {ROWS} as scored"
        f" join {USERS} as mine using (user_id) join {USERS} as next on next.place = mine.place + 1"
    ),
    "the last publication under a new date": sql(
        f"create or replace table {ROWS} as select * replace ({{as_of}} as as_of) {BEFORE}"
    ),
    "the last publication as it was": sql(f"create or replace table {ROWS} as {BEFORE}"),
    "another ranker than the gate's": lambda bench: bench.write(bench.scores, ranker="popularity"),
    "tables of another date": sql("update graph.interaction_edges set age_days = age_days + 7"),
}


def tried(bench: Bench, kinds: Mapping[str, Callable[[Bench], int | None]], title: str) -> dict[str, list[str]]:
    """By kind the rules that hold it back, printed as a table while they are found."""
    print(f"\n| {title} | held back by | and by |\n| --- | --- | --- |")
    verdicts = {}
    for name, make in kinds.items():
        bench.restore()
        verdicts[name] = rules = bench.judge(make(bench))
        more = f"{len(rules) - 1} more" if len(rules) > 1 else ""
        print(f"| {name} | {rules[0] if rules else 'published'} | {more} |", flush=True)
    return verdicts


def published() -> list[Path]:
    """A home for each of `PUBLISHED`, its last date and the two before."""
    prepare_prefect(HOMES.resolve(), verbose=False)
    from flows.backfill import backfill

    for source, (folder, last) in PUBLISHED.items():
        files, first = Path(os.environ["ALMANAC_DATA"], folder), last - timedelta(days=2)
        given = {"source": source, "input": files, "home": HOMES / source, "retrain": "weekly"}
        backfill(BackfillConfig(first=first, last=last, **given))  # pyright: ignore[reportArgumentType, reportCallIssue]
    return [HOMES / source for source in PUBLISHED]


def main(homes: list[Path]) -> None:
    """Prints two tables per home; exits with 1 where a degraded set passed or a harmless one did not."""
    wrong = []
    for home in homes or published():
        with tempfile.TemporaryDirectory() as scratch:
            bench = prepare(home, Path(scratch))
            print(f"\n{bench.source.name} as of {bench.as_of}")
            degraded, harmless = tried(bench, DEGRADED, "degraded"), tried(bench, HARMLESS, "harmless")
        wrong += [f"{name} was published" for name, rules in degraded.items() if not rules]
        wrong += [f"{name} was held back: {'; '.join(rules)}" for name, rules in harmless.items() if rules]
    print("\n" + ("\n".join(wrong) or "all judged as they should be"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main([Path(home) for home in sys.argv[1:]])

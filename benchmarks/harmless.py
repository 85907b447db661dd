"""Changes between one publication and the next that are as they should be: the gate must let them through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.relisted import Bench
from models.network import Network
from models.network_ranker import NetworkRanker
from tasks.transform import build_graph

Kind = Callable[[Bench], int | None]  # returns rows per list where they are not the home's
ROWS = "scored.recommendations"


def network(make: Callable[[Bench], Network]) -> Kind:
    return lambda bench: bench.write(bench.all_scores(NetworkRanker(make(bench), bench.graph)))


def changed(change: Callable[[Tensor], Tensor]) -> Kind:
    return lambda bench: bench.write({name: change(scores) for name, scores in bench.scores.items()})


def noisy(scores: Tensor, share: float) -> Tensor:
    spread = scores[scores.isfinite()].std() * share
    return scores + spread * torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))


def tied(scores: Tensor) -> Tensor:
    """Rounded to a sixteenth of their spread."""
    step = scores[scores.isfinite()].std() / 16
    return (scores / step).round() * step


def lists_of(length: int) -> Kind:
    def make(bench: Bench) -> int:
        bench.write(bench.scores, length)
        return length

    return make


def chosen(ranker: str) -> Kind:
    """The gate chose a baseline, which did as well on the holdouts as what was published did."""

    def make(bench: Bench) -> None:
        bench.execute(
            f"update scored.metrics as its set value = best.value from (select list, ranker, holdout_date, metric, value"
            f" from scored.metrics where as_of = {{as_of}}) as best join scored.gate as gate on best.list = gate.list and"
            f" best.ranker = gate.ranker and gate.as_of = {{as_of}} where its.ranker = '{ranker}' and its.list = best.list"
            f" and its.as_of = {{as_of}} and its.holdout_date = best.holdout_date and its.metric = best.metric",
            f"update scored.gate set ranker = '{ranker}' where as_of = {{as_of}}",
        )
        bench.write(bench.all_scores(bench.baseline(ranker)), ranker=ranker)

    return make


def data(*statements: str, trained: bool = False) -> Kind:
    """The same model, or one trained anew, on changed data."""

    def make(bench: Bench) -> None:
        bench.execute(*statements)
        build_graph(bench.home, bench.source, bench.as_of)
        now = bench.reload()
        ranker = NetworkRanker(now.train() if trained else now.network(), now.graph)
        now.write(now.all_scores(ranker), ranker="almanac")
        now.execute("update scored.gate set ranker = 'almanac' where as_of = {as_of}")

    return make


def sql(*statements: str) -> Kind:
    return lambda bench: bench.execute(*statements)


EVENTS, USERS, ITEMS = "staging.interactions", "staging.users", "staging.items"
SOME = "hash({}) % {} = 0"
LATE = "event_date >= {{as_of}} - {}"
HARMLESS: dict[str, Kind] = {
    "as it was scored": sql(),
    "another seed": network(lambda bench: bench.train(seed=7)),
    "fewer epochs": network(lambda bench: bench.train(epochs=max(1, bench.model["epochs"] // 2))),
    "warm start": network(lambda bench: bench.train(warm=True)),
    "diversity 0.3": lambda bench: bench.write(bench.scores, diversity=0.3),
    "lists of 10": lists_of(10),
    "lists of 50": lists_of(50),
    "float noise": changed(lambda scores: noisy(scores, 1e-6)),
    "a hundredth of noise": changed(lambda scores: noisy(scores, 0.01)),
    "ties": changed(tied),
    "scores ten times as high": changed(lambda scores: 10 * scores),
    "the gate chose repeat_trend": chosen("repeat_trend"),
    "the gate chose ease": chosen("ease"),
    "the gate chose item_knn": chosen("item_knn"),
    "the gate chose personal_repeat": chosen("personal_repeat"),
    "the gate chose decayed_popularity": chosen("decayed_popularity"),
    "a few users fewer": data(
        *(f"delete from {table} where {SOME.format('user_id', 30)}" for table in (EVENTS, USERS))
    ),
    "a few users more": data(
        *(
            f"insert into {table} select * replace (user_id || ' again' as user_id) from {table}"
            f" where {SOME.format('user_id', 30)}"
            for table in (EVENTS, USERS)
        )
    ),
    "a new item": data(
        f"insert into {ITEMS} select * replace ('a new item' as item_id) from {ITEMS} limit 1",
        f"update {EVENTS} set item_id = 'a new item' where {LATE.format(7)} and {SOME.format('user_id, item_id', 50)}",
    ),
    "a tenth of the items gone": data(
        f"update {ITEMS} set valid_to = {{as_of}} - 3 where {SOME.format('item_id', 10)}", trained=True
    ),
    "a holiday week with half the events": data(
        f"delete from {EVENTS} where {LATE.format(7)} and {SOME.format('user_id, item_id, event_date', 2)}"
    ),
    "a closed week": data(f"delete from {EVENTS} where {LATE.format(7)}"),
    "a sale: one item bought by every fifth": data(
        f"insert into {EVENTS} select * replace ((select mode(item_id) from {EVENTS}) as item_id, {{as_of}} - 1 as event_date)"
        f" from (select distinct on (user_id) * from {EVENTS} where {SOME.format('user_id', 5)})"
    ),
    "the first publication": sql("update mart.runs set status = 'failed' where as_of < {as_of}"),
    "after a gap of months": sql(
        *(
            f"update mart.{table} set as_of = as_of - 100 where as_of < {{as_of}}"
            for table in ("runs", "recommendations", "gate", "metrics")
        )
    ),
    "the last publication was from popularity": sql(
        "update mart.gate set ranker = 'decayed_popularity' where as_of = {before}"
    ),
    "the last publication had lists of 5": sql("delete from mart.recommendations where as_of = {before} and rank > 5"),
}

"""The network and every baseline on the last four horizons before as_of, each with choices made on the other three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import torch
from torch import Tensor

from models.baselines import BASELINES
from models.graph import Graph
from models.metrics import METRICS, coverage, hits, paired_difference
from models.network import LISTS, Network, served_lists
from models.network_ranker import NetworkRanker
from models.ranking import Ranker, top_k
from models.settings import DAILY, BaselineName, ModelSettings
from models.timeline import Timeline
from models.training import Progress, fit

MOST_HOLDOUTS = 4
MOST_USERS = 2000  # of one holdout, drawn at random: enough to tell rankers apart
TASTE_SHARES = (1.0, 0.7, 0.5, 0.25)  # of the trained temperature: what was learned by heart counts less on later dates
MODEL = "almanac"
PATIENCE = 2  # epochs without a better one, after which there are no more
Option = Any  # half-life of a baseline; epochs and taste share of the network, and the hop it goes without


@dataclass(frozen=True)
class MetricRow:
    """One measured value; `users` had something to find."""

    list_name: str
    ranker: str
    holdout_date: date
    metric: str
    value: float
    users: int


@dataclass(frozen=True)
class Evaluation:
    """What the holdouts measured and chose. Per list, all tensors of `user_ndcg` are aligned with `user_index`."""

    k: int
    repeats: bool
    holdout_dates: tuple[date, ...]  # oldest first; empty where the history is too short
    rows: tuple[MetricRow, ...]
    user_index: dict[str, Tensor]  # list → int64 [N], one entry per user and holdout
    user_ndcg: dict[str, dict[str, Tensor]]  # list → ranker → float32 [N]
    settings: ModelSettings  # of the network to publish: without the hops that harm on the holdouts, beyond noise
    epochs: int  # of the network to publish
    taste_share: float  # of its trained temperature
    options: dict[str, dict[str, float]]  # list → baseline → half-life in horizons (epochs for repeat_trend)


@dataclass(frozen=True)
class Holdout:
    """One horizon: the graph at its start, and what known users then did with known items."""

    graph: Graph
    users: dict[str, Tensor]  # list → int64 [U], ascending, those with something to find
    truth: dict[str, tuple[Tensor, Tensor]]  # list → user_index, item_index


@dataclass
class Trials:
    """Metrics of one ranker: option → list → one dict per holdout of per-user values."""

    measured: dict[Option, dict[str, list[dict[str, Tensor]]]] = field(default_factory=dict)

    def add(self, option: Option, list_name: str, metrics: dict[str, Tensor]) -> None:
        self.measured.setdefault(option, {}).setdefault(list_name, []).append(metrics)

    def best(self, lists: tuple[str, ...], holdouts: list[int]) -> Any:
        """The option with the best NDCG over these lists (each relative to its best) and holdouts; ties: the first."""
        total = torch.zeros(len(self.measured), dtype=torch.float64)
        for list_name in lists:
            trials = [option[list_name] for option in self.measured.values()]
            pooled = torch.stack([torch.cat([trial[h]["ndcg"] for h in holdouts]).double().mean() for trial in trials])
            pooled = pooled.nan_to_num()  # a list with nothing to find in these holdouts has no say
            total += pooled / pooled.max().clamp(min=1e-12)
        return list(self.measured)[int(total.argmax())]

    def is_better(self, one: Option, other: Option, lists: tuple[str, ...], users: list[dict[str, Tensor]]) -> bool:
        """Whether the NDCG of one option is above the other's over all lists and holdouts, with a one-sided 90 % interval."""
        mine, its = (
            torch.cat([metrics["ndcg"] for name in lists for metrics in self.measured[option][name]])
            for option in (one, other)
        )
        _, least = paired_difference(mine, its, torch.cat([of[name].cpu() for name in lists for of in users]))
        return least > 0

    def cross_fitted(self, lists: tuple[str, ...], holdout_count: int) -> list[Any]:
        """For each holdout the option that is best on the others; a single holdout has none and chooses for itself."""
        everyone = list(range(holdout_count))
        return [self.best(lists, [other for other in everyone if other != number] or everyone) for number in everyone]


def evaluate(
    graph: Graph,
    horizon_days: int,
    repeats: bool,
    settings: ModelSettings,
    k: int = 20,
    progress: Progress | None = None,
    baselines: tuple[BaselineName, ...] = DAILY,
) -> Evaluation:
    """Trains once before the first holdout, refreshes the graph at each, and measures NDCG and more at k.

    Every choice (epochs, half-life) that a holdout is measured with was made on the other holdouts. progress is called
    with (rankers and epochs done, in all).
    """
    names = served_lists(repeats)
    holdouts, back_days = _holdouts(graph, horizon_days, names[0], settings.seed)
    contenders: list[BaselineName] = [name for name in baselines if graph.item_count <= BASELINES[name].most_items]
    trials = {name: Trials() for name in (MODEL, *contenders)}
    hops = _hops(graph, settings)
    done, total = 0, settings.epochs + len(hops) + len(contenders)

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    def measure(name: str, option: Option, refresh: Callable[[Graph], Ranker]) -> None:
        for holdout in holdouts:
            ranker = refresh(holdout.graph)
            for list_name in names:
                trials[name].add(option, list_name, metrics(ranker, holdout, list_name, k))

    if not holdouts:
        return _chosen(holdouts, trials, k, repeats, settings)
    before, everyone = graph.back(back_days), list(range(len(holdouts)))

    def measure_network(options: list[Option], network: Network, timelines: dict[date, Timeline]) -> None:
        rankers = {
            day: NetworkRanker(network, timeline.graph, timeline=timeline) for day, timeline in timelines.items()
        }
        for option in options:
            measure(MODEL, option, lambda now, share=option[1]: rankers[now.as_of].with_taste(share))

    timelines = _timelines(holdouts, horizon_days, settings)

    def on_epoch(epoch: int, network: Network) -> bool:
        measure_network([(epoch, share) for share in TASTE_SHARES], network, timelines)
        step()
        return epoch - trials[MODEL].best(names, everyone)[0] < PATIENCE

    fit(before, horizon_days, settings, epochs=settings.epochs, lists=names, on_epoch=on_epoch)
    best = trials[MODEL].best(names, everyone)
    for hop in hops:
        without = settings.model_copy(update={hop: False})
        network = fit(before, horizon_days, without, epochs=best[0], lists=names)
        measure_network([(*best, hop)], network, _timelines(holdouts, horizon_days, without))
        step()
    for contender in contenders:
        for option in BASELINES[contender].options:
            measure(contender, option, BASELINES[contender].fit(before, horizon_days, settings, option))
        step()
    harmful = [hop for hop in hops if trials[MODEL].is_better((*best, hop), best, names, [h.users for h in holdouts])]
    for hop in hops:
        del trials[MODEL].measured[*best, hop]
    return _chosen(holdouts, trials, k, repeats, settings.model_copy(update=dict.fromkeys(harmful, False)))


def _hops(graph: Graph, settings: ModelSettings) -> list[str]:
    """The kinds of hop that may be turned off: those the graph has edges of."""
    edges = {"facts": (graph.item_entities, graph.user_entities), "friends": (graph.user_users,)}
    return [hop for hop, kinds in edges.items() if getattr(settings, hop) and any(len(kind.weight) for kind in kinds)]


def _timelines(holdouts: list[Holdout], horizon_days: int, settings: ModelSettings) -> dict[date, Timeline]:
    return {holdout.graph.as_of: Timeline(holdout.graph, horizon_days, settings) for holdout in holdouts}


def _holdouts(graph: Graph, horizon_days: int, widest: str, seed: int) -> tuple[list[Holdout], int]:
    """Oldest first, as many of the last four horizons as leave one to learn from and some history before it.

    Also how many days before as_of the first begins. Horizons with nothing to find for the `widest` list are left out.
    """
    count = max(0, min(MOST_HOLDOUTS, (graph.oldest_days - 1) // horizon_days - 1))
    holdouts = [holdout(graph, horizon_days, number * horizon_days, MOST_USERS, seed) for number in range(count, 0, -1)]
    return [holdout for holdout in holdouts if len(holdout.users[widest])], count * horizon_days


def holdout(graph: Graph, horizon_days: int, back_days: int, most_users: int, seed: int = 0) -> Holdout:
    """The horizon that begins `back_days` before the graph's date, with at most so many users, drawn at random."""
    now = graph.back(back_days)
    user, item = graph.targets(horizon_days, back_days)
    events = now.interactions
    kept = torch.isin(user, events.user_index) & now.live_items[item]
    user, item = user[kept], item[kept]
    everyone = torch.unique(user)
    drawn = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))[:most_users]
    kept = torch.isin(user, everyone[drawn.to(user.device)])
    user, item = user[kept], item[kept]
    new = ~torch.isin(user * graph.item_count + item, events.user_index * graph.item_count + events.item_index)
    truth = {"for_you": (user, item), "discover": (user[new], item[new])}
    return Holdout(now, {name: torch.unique(pair[0]) for name, pair in truth.items()}, truth)


def metrics(ranker: Ranker, holdout: Holdout, list_name: str, k: int) -> dict[str, Tensor]:
    """Each metric at k of each user with something to find in the holdout: float32 [U], and the coverage of their lists."""
    users, (truth_user, truth_item) = holdout.users[list_name], holdout.truth[list_name]
    items, _ = top_k(ranker, holdout.graph, users, k, list_name, repeats=True)
    hit, count = hits(items, users, truth_user, truth_item, holdout.graph.item_count)
    values = {name: metric(hit, count).cpu() for name, metric in METRICS.items()}
    return values | {"coverage": torch.tensor([coverage(items, int(holdout.graph.live_items.sum()))])}


def _chosen(
    holdouts: list[Holdout], trials: dict[str, Trials], k: int, repeats: bool, settings: ModelSettings
) -> Evaluation:
    trials = trials if holdouts else {}
    everyone = list(range(len(holdouts)))
    rows: list[MetricRow] = []
    ndcg: dict[str, dict[str, Tensor]] = {name: {} for name in LISTS}
    judged = {name: name if repeats else "discover" for name in LISTS}
    for list_name in LISTS:
        for ranker, trial in trials.items():
            options = trial.cross_fitted(_chosen_by(ranker, judged[list_name], repeats), len(holdouts))
            measured = [trial.measured[option][judged[list_name]][number] for number, option in enumerate(options)]
            ndcg[list_name][ranker] = torch.cat([metrics["ndcg"] for metrics in measured])
            for holdout, metrics in zip(holdouts, measured, strict=True):
                users = len(metrics["ndcg"])
                for metric, values in metrics.items() if users else ():
                    rows.append(MetricRow(list_name, ranker, holdout.graph.as_of, metric, float(values.mean()), users))
    none = torch.zeros(0, dtype=torch.int64)
    epochs, share = trials[MODEL].best(served_lists(repeats), everyone) if holdouts else (settings.epochs, 1.0)
    users_of = {name: [holdout.users[judged[name]].cpu() for holdout in holdouts] for name in LISTS}
    return Evaluation(
        k=k,
        repeats=repeats,
        holdout_dates=tuple(holdout.graph.as_of for holdout in holdouts),
        rows=tuple(rows),
        user_index={name: torch.cat([none, *users]) for name, users in users_of.items()},
        user_ndcg=ndcg,
        settings=settings,
        epochs=epochs,
        taste_share=share,
        options={
            name: {ranker: trial.best((judged[name],), everyone) for ranker, trial in trials.items() if ranker != MODEL}
            for name in LISTS
        },
    )


def _chosen_by(ranker: str, list_name: str, repeats: bool) -> tuple[str, ...]:
    """The lists that choose a ranker's option: one network serves both, a baseline is fitted for each."""
    return served_lists(repeats) if ranker == MODEL else (list_name,)

"""The network and every baseline on the last four horizons before as_of, each with choices made on the other three."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import torch
from torch import Tensor

from models.baselines import BASELINES, Parameters
from models.calibration import calibrate, held_out
from models.graph import Graph
from models.metrics import METRICS, coverage, hits, paired_difference
from models.network import LISTS, RERANKER, SHARE, Finish, Network, served_lists
from models.network_ranker import ItemFilter, NetworkRanker, learn_filter
from models.ranking import Ranker, top_k
from models.reranker import Lesson, fit_reranker
from models.settings import DAILY, MODEL, ModelSettings, RivalName
from models.timeline import Timeline
from models.training import Progress, fit

MOST_HOLDOUTS = 4
MOST_USERS = 2000  # of one holdout, drawn at random: enough to tell rankers apart
TASTE_SHARES = (1.0, 0.7, 0.5, 0.25, 0.1)  # of the trained temperature: what was learned by heart counts less later
PATIENCE = 2  # epochs without a better one, after which there are no more
FINISHES = CALIBRATED, RERANKED = "calibrated", "reranked"
Option = Any  # place in a baseline's options; of the network epochs, taste share, and what else is changed about it


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
    finishes: dict[str, Finish]  # served list → how its head leaves training
    options: dict[str, dict[str, Parameters]]  # list → baseline → what it is fitted with


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
        return max(self.measured, key=self.worth(lists, holdouts))

    def worth(self, lists: tuple[str, ...], holdouts: list[int]) -> Callable[[Option], float]:
        """The sum of an option's relative NDCG over the lists."""
        relative = [self._relative(list_name, holdouts) for list_name in lists]
        return lambda option: sum(of[option] for of in relative)

    def best_epoch(self, lists: tuple[str, ...], holdouts: list[int]) -> tuple[int, dict[str, Any]]:
        """The network's epoch that is best for all lists together, each finished as suits it, and these finishes.

        A second stage must be better than the next best finish on most of the holdouts, too: it has so many numbers that a
        single unusual horizon can speak for it.
        """
        worth = {name: self._relative(name, holdouts) for name in lists}

        def finish(epoch: int, list_name: str) -> Option:
            options = [option for option in self.measured if option[0] == epoch]
            first, *others = sorted(options, key=worth[list_name].__getitem__, reverse=True)
            steady = first[1] != RERANKED or self._wins(first, others[0], list_name, holdouts)
            return first if steady else others[0]

        def finishes(epoch: int) -> dict[str, Option]:
            return {name: finish(epoch, name) for name in lists}

        def total(epoch: int) -> float:
            return sum(worth[name][option] for name, option in finishes(epoch).items())

        best = max(dict.fromkeys(option[0] for option in self.measured), key=total)
        return best, {name: option[1] for name, option in finishes(best).items()}

    def _relative(self, list_name: str, holdouts: list[int]) -> dict[Option, float]:
        """NDCG of each option, relative to the best; a list with nothing to find in these holdouts has no say."""
        pooled = {
            option: float(torch.cat([trial[list_name][h]["ndcg"] for h in holdouts]).double().mean().nan_to_num())
            for option, trial in self.measured.items()
        }
        most = max(1e-12, *pooled.values())
        return {option: value / most for option, value in pooled.items()}

    def _wins(self, one: Option, other: Option, list_name: str, holdouts: list[int]) -> bool:
        """Whether an option's NDCG is above the other's on more than half of the holdouts with anything to find."""
        mine, its = ([self.measured[option][list_name][h]["ndcg"] for h in holdouts] for option in (one, other))
        wins = [bool(a.mean() > b.mean()) for a, b in zip(mine, its, strict=True) if len(a)]
        return 2 * sum(wins) > len(wins)

    def is_better(self, one: Option, other: Option, lists: tuple[str, ...], users: list[dict[str, Tensor]]) -> bool:
        """Whether the NDCG of one option is above the other's over all lists and holdouts, with a one-sided 90 % interval."""
        mine, its = (
            torch.cat([metrics["ndcg"] for name in lists for metrics in self.measured[option][name]])
            for option in (one, other)
        )
        _, least = paired_difference(mine, its, torch.cat([of[name].cpu() for name in lists for of in users]))
        return least > 0


def others_of(number: int, count: int) -> list[int]:
    """The holdouts on which is chosen what one is measured with; a single one has no others and chooses for itself."""
    return [other for other in range(count) if other != number] or [number]


def evaluate(
    graph: Graph,
    horizon_days: int,
    repeats: bool,
    settings: ModelSettings,
    k: int = 20,
    progress: Progress | None = None,
    baselines: tuple[RivalName, ...] = DAILY,
) -> Evaluation:
    """Trains once before the first holdout, refreshes the graph at each, and measures NDCG and more at k.

    Every choice (epochs, finish, half-life) that a holdout is measured with was made on the other holdouts; only the epoch and
    share of the taste on which calibration and second stage build are those that are best on all. progress is called with
    (rankers and epochs done, in all).
    """
    names = served_lists(repeats)
    holdouts, back_days = last_holdouts(graph, horizon_days, names[0], settings.seed)
    contenders: list[RivalName] = [name for name in baselines if graph.item_count <= BASELINES[name].most_items]
    trials = {name: Trials() for name in (MODEL, *contenders)}
    done, total = 0, settings.epochs + len(_hops(graph, settings)) + len(FINISHES) + len(contenders)

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
        return _chosen(holdouts, trials, k, repeats, settings, {})
    before = graph.back(back_days)
    chosen, learned = _judge_network(before, holdouts, horizon_days, settings, names, measure, trials[MODEL], step)
    for contender in contenders:
        for place, option in enumerate(BASELINES[contender].options):
            measure(contender, place, BASELINES[contender].fit(before, horizon_days, settings, option))
        step()
    return _chosen(holdouts, trials, k, repeats, chosen, learned)


def _judge_network(
    before: Graph,
    holdouts: list[Holdout],
    horizon_days: int,
    settings: ModelSettings,
    lists: tuple[str, ...],
    measure: Callable[[str, Option, Callable[[Graph], Ranker]], None],
    trials: Trials,
    step: Callable[[], None],
) -> tuple[ModelSettings, dict[str, dict[str, Finish]]]:
    """Measures epochs, shares of the taste, the calibration and the second stage.

    Returns the settings without harmful hops, compared at the best epoch and share, and what calibration and reranker learned
    at the best epoch, by list.
    """
    everyone, kept = list(range(len(holdouts))), []

    def prepared(settings: ModelSettings) -> list[Timeline]:
        return [Timeline(holdout.graph, horizon_days, settings) for holdout in holdouts]

    def measure_shares(network: Network, timelines: list[Timeline], options: list[Option]) -> None:
        rankers = {
            timeline.graph.as_of: NetworkRanker(network, timeline.graph, timeline=timeline) for timeline in timelines
        }
        for option in options:
            measure(MODEL, option, lambda now, share=option[1]: rankers[now.as_of].with_taste(share))

    timelines = prepared(settings)

    def on_epoch(epoch: int, network: Network) -> bool:
        measure_shares(network, timelines, [(epoch, share) for share in TASTE_SHARES])
        step()
        best_epoch, _ = trials.best_epoch(lists, everyone)
        if best_epoch == epoch:
            kept[:] = [deepcopy(network)]
        took = time.monotonic() - begun
        in_time = not settings.most_seconds or took * (epoch + 1) / epoch <= settings.most_seconds
        return epoch - best_epoch < PATIENCE and in_time

    begun = time.monotonic()
    fit(before, horizon_days, settings, epochs=settings.epochs, lists=lists, on_epoch=on_epoch)
    epoch, _ = trials.best_epoch(lists, everyone)
    best = max((option for option in trials.measured if option[0] == epoch), key=trials.worth(lists, everyone))
    harmful = []
    for hop in _hops(before, settings):
        without = settings.model_copy(update={hop: False})
        network = fit(before, horizon_days, without, epochs=best[0], lists=lists)
        measure_shares(network, prepared(without), [(*best, hop)])
        if trials.is_better((*best, hop), best, lists, [holdout.users for holdout in holdouts]):
            harmful.append(hop)
        del trials.measured[*best, hop]
        step()
    learned: dict[str, dict[str, Finish]] = {}
    network, share = kept[0], best[1]
    reads_filter = settings.calibration or (settings.reranker and not settings.random_graph)
    weights = learn_filter(before, network) if settings.taste and reads_filter else None
    if settings.calibration and settings.taste:
        learned[CALIBRATED] = _calibrate(network.with_taste(share), weights, holdouts, timelines, lists, measure, epoch)
    step()
    if settings.reranker and len(holdouts) > 1:  # it has too many numbers to be judged where it learned
        learned[RERANKED] = _rerank(network, share, weights, holdouts, timelines, lists, measure, epoch)
    step()
    return settings.model_copy(update=dict.fromkeys(harmful, False)), learned


def _calibrate(
    network: Network,
    weights: ItemFilter | None,
    holdouts: list[Holdout],
    timelines: list[Timeline],
    lists: tuple[str, ...],
    measure: Callable[[str, Option, Callable[[Graph], Ranker]], None],
    epoch: int,
) -> dict[str, Finish]:
    """Learns it on all holdouts, and measures it on each as learned on the others."""
    parts = [
        held_out(NetworkRanker(network, timeline.graph, timeline=timeline, item_filter=weights), holdout.truth, lists)
        for holdout, timeline in zip(holdouts, timelines, strict=True)
    ]
    whole = calibrate(network, [part for held in parts for part in held])
    rankers = {}
    for place, timeline in enumerate(timelines):
        others = [part for other in others_of(place, len(parts)) for part in parts[other]]
        mine = calibrate(network, others)
        rankers[timeline.graph.as_of] = NetworkRanker(mine, timeline.graph, timeline=timeline, item_filter=weights)
    measure(MODEL, (epoch, CALIBRATED), lambda now: rankers[now.as_of])
    return {name: whole.calibration_values(name) for name in lists}


def _rerank(
    network: Network,
    share: float,
    weights: ItemFilter | None,
    holdouts: list[Holdout],
    timelines: list[Timeline],
    lists: tuple[str, ...],
    measure: Callable[[str, Option, Callable[[Graph], Ranker]], None],
    epoch: int,
) -> dict[str, Finish]:
    """Learns it on all holdouts, and measures it on each as learned on the others."""
    first, seed = network.with_taste(share), network.settings.seed
    lessons = []
    for holdout, timeline in zip(holdouts, timelines, strict=True):
        ranker = NetworkRanker(first, timeline.graph, timeline=timeline, item_filter=weights)
        lessons.append({name: lesson(ranker, holdout, name) for name in lists})

    def learned(places: list[int]) -> dict[str, Finish]:
        rerankers = {name: fit_reranker([lessons[place][name] for place in places], seed) for name in lists}
        return {name: {SHARE: share, RERANKER: reranker.values()} for name, reranker in rerankers.items()}

    rankers = {}
    for place, timeline in enumerate(timelines):
        mine = network.finished(learned(others_of(place, len(lessons))))
        rankers[timeline.graph.as_of] = NetworkRanker(mine, timeline.graph, timeline=timeline, item_filter=weights)
    measure(MODEL, (epoch, RERANKED), lambda now: rankers[now.as_of])
    return learned(list(range(len(lessons))))


def lesson(ranker: NetworkRanker, holdout: Holdout, list_name: str) -> Lesson:
    """The candidates of the holdout's users, and which of them followed."""
    users, (user, item) = holdout.users[list_name], holdout.truth[list_name]
    found = ranker.candidates(users, list_name)
    cell = torch.arange(len(users), device=users.device)[:, None] * holdout.graph.item_count + found.item
    hit = torch.isin(cell, torch.searchsorted(users, user) * holdout.graph.item_count + item)
    return Lesson(found, hit & (found.first > -torch.inf))


def _hops(graph: Graph, settings: ModelSettings) -> list[str]:
    """The kinds of hop that may be turned off: those the graph has edges of."""
    edges = {"facts": (graph.item_entities, graph.user_entities), "friends": (graph.user_users,)}
    return [hop for hop, kinds in edges.items() if getattr(settings, hop) and any(len(kind.weight) for kind in kinds)]


def last_holdouts(graph: Graph, horizon_days: int, widest: str, seed: int) -> tuple[list[Holdout], int]:
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
    holdouts: list[Holdout],
    trials: dict[str, Trials],
    k: int,
    repeats: bool,
    settings: ModelSettings,
    learned: dict[str, dict[str, Finish]],
) -> Evaluation:
    trials = trials if holdouts else {}
    count, served = len(holdouts), served_lists(repeats)
    rows: list[MetricRow] = []
    ndcg: dict[str, dict[str, Tensor]] = {name: {} for name in LISTS}
    judged = {name: name if repeats else "discover" for name in LISTS}
    for list_name in LISTS:
        for ranker, trial in trials.items():
            options = [_option(ranker, trial, judged[list_name], served, others_of(n, count)) for n in range(count)]
            measured = [trial.measured[option][judged[list_name]][number] for number, option in enumerate(options)]
            ndcg[list_name][ranker] = torch.cat([metrics["ndcg"] for metrics in measured])
            for holdout, metrics in zip(holdouts, measured, strict=True):
                users = len(metrics["ndcg"])
                for metric, values in metrics.items() if users else ():
                    rows.append(MetricRow(list_name, ranker, holdout.graph.as_of, metric, float(values.mean()), users))
    none = torch.zeros(0, dtype=torch.int64)
    epochs, finishes = settings.epochs, dict.fromkeys(served, 1.0)
    if holdouts:
        epochs, finishes = trials[MODEL].best_epoch(served, list(range(count)))
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
        finishes={name: learned[how][name] if how in learned else how for name, how in finishes.items()},
        options={
            name: {
                ranker: BASELINES[ranker].options[trial.best((judged[name],), list(range(count)))]
                for ranker, trial in trials.items()
                if ranker != MODEL
            }
            for name in LISTS
        },
    )


def _option(ranker: str, trial: Trials, list_name: str, served: tuple[str, ...], holdouts: list[int]) -> Option:
    """What a list is measured with: the network has one epoch for all lists, a baseline is fitted for each."""
    if ranker != MODEL:
        return trial.best((list_name,), holdouts)
    epoch, finishes = trial.best_epoch(served, holdouts)
    return epoch, finishes[list_name]

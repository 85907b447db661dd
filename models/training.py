"""Training on many past dates: the graph as of each is the input, the events of the following horizon the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import decay
from models.network import LISTS, Network
from models.settings import ModelSettings
from models.timeline import RECENT, Snapshot, Timeline

CALIBRATION_STEP = 4.0  # times the learning rate, for the few numbers all users and items share
SCORES_PER_STEP = 2**23  # users times items of one optimizer step: 32 MB for each list
SCORES_PER_EPOCH = 2**29  # users times items of one pass: bounds the time in shops with many users a day
MOST_WHOLE = 10_000  # larger catalogues are learned from with a sample of the items as negatives
NEGATIVES = 4096
EVENTS_PER_DATE = 2**18  # of history that one past date is learned from: bounds time and memory in busy shops
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Example:
    """One step of training: B users at one past date, and what they did next."""

    snapshot: Snapshot
    row: Tensor  # int64 [N], position in snapshot.users
    item: Tensor  # int64 [N]
    weight: float
    chance: Tensor | None = (
        None  # float32 [I], with which each item is drawn as a negative; None = all items are scored
    )


def fit(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    *,
    epochs: int,
    lists: tuple[str, ...] = LISTS,
    on_epoch: Callable[[int, Network], bool | None] | None = None,
    progress: Progress | None = None,
    start: Callable[[Network], None] | None = None,
) -> Network:
    """The network after `epochs` passes over the graph's past dates; on CPU, the same input gives the same bits.

    lists: those to learn. start may change the new network before it learns. on_epoch is called with (epochs made, network)
    after each pass, and ends the training by False; progress with (steps made, steps in all).
    """
    device = graph.interactions.user_index.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        timeline = Timeline(graph, horizon_days, settings)
        network = new_network(timeline, settings).to(device)
        if start:
            start(network)
        steps = examples(timeline, settings)
        optimizer = torch.optim.Adam(
            [{"params": [network.item, network.entity]}, {"params": network.calibration(), "step": CALIBRATION_STEP}],
            lr=settings.learning_rate,
        )
        events = torch.bincount(graph.interactions.item_index, minlength=graph.item_count)
        unlearned = (events == 0) | (graph.item_age_days <= horizon_days)  # newer than every date learned from
        total, done = settings.epochs * len(steps), 0
        for epoch in range(1, epochs + 1):
            network.train()
            for position in torch.randperm(len(steps)).tolist():
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * group.get("step", 1.0) * (1 + cos(pi * done / total)) / 2
                optimizer.zero_grad()
                loss(network, steps[position], lists).backward()
                optimizer.step()
                done += 1
                if progress:
                    progress(done, epochs * len(steps))
            network.eval()
            with torch.no_grad():  # what was not learned from must not speak: its start values are noise
                network.item[unlearned] = 0
            if on_epoch and on_epoch(epoch, network) is False:
                break
    return network.eval()


def new_network(timeline: Timeline, settings: ModelSettings) -> Network:
    """An untrained network of the graph's size; its trend and repeat start as plain popularity and recency."""
    graph = timeline.graph
    sample = timeline.at(0, torch.zeros(0, dtype=torch.int64, device=timeline.user_offsets.device))
    return Network(
        graph.item_count,
        graph.entity_count,
        graph.event_types,
        timeline.horizon_days,
        source_count=len(sample.history.kernels) * len(graph.event_types) + 2,  # and entities, and friends
        trend_count=sample.trend.shape[1],
        settings=settings,
    )


def examples(timeline: Timeline, settings: ModelSettings) -> list[Example]:
    """The past dates to learn from, newest first, each with as many users as the limits of this module leave it."""
    graph, horizon = timeline.graph, timeline.horizon_days
    every = min(settings.snapshot_every_days, horizon)
    dates = range(horizon, graph.oldest_days, every)[: settings.snapshot_count]
    columns = columns_at_once(graph)
    users_per_step = max(1, SCORES_PER_STEP // max(1, columns))
    users_per_date = max(1, SCORES_PER_EPOCH // max(1, columns * len(dates)))
    result = []
    for back in dates:
        user, item = graph.targets(horizon, back)
        kept = timeline.known_users(back)[user] & timeline.live_items(back)[item]
        drawn = _drawn(timeline, torch.unique(user[kept]), users_per_date)
        kept &= torch.isin(user, drawn)
        user, item = user[kept], item[kept]
        weight = float(decay(torch.tensor(float(back)), settings.snapshot_half_life_days))
        for users in drawn.split(users_per_step) if len(drawn) else ():
            inside = (user >= users[0]) & (user <= users[-1])
            row = torch.searchsorted(users, user[inside])
            snapshot = timeline.at(back, users)
            chance = chances(snapshot) if columns < graph.item_count else None
            result.append(Example(snapshot, row, item[inside], weight, chance))
    return result


def _drawn(timeline: Timeline, users: Tensor, most: int) -> Tensor:
    """At most so many of the users, at random and ascending, with `EVENTS_PER_DATE` events together; at least one."""
    order = torch.randperm(len(users)).to(users.device)[:most]
    events = (timeline.user_offsets[users + 1] - timeline.user_offsets[users])[order]
    return users[order[(torch.cumsum(events, 0) - events) < EVENTS_PER_DATE]].sort().values


def columns_at_once(graph: Graph) -> int:
    """How many items, or how many drawn as negatives, are scored at a time."""
    return graph.item_count if graph.item_count <= MOST_WHOLE else NEGATIVES


def chances(snapshot: Snapshot) -> Tensor:
    """Half by popularity to the power ¾, its recent events counting more, half the same for all live items."""
    popularity = (snapshot.trend[:, snapshot.trend_part == RECENT].expm1().sum(1).pow(0.75) * snapshot.live).double()
    return (popularity / popularity.sum().clamp(min=1e-30) + snapshot.live / snapshot.live.sum()).float() / 2


def loss(network: Network, example: Example, lists: tuple[str, ...] = LISTS) -> Tensor:
    """−Σ_targets log p / √(targets of the user), of these lists, per user, times the date's weight.

    p is the softmax over live items; in `discover` over those the user has no event with, and so are the targets.
    """
    snapshot, columns, log_weight = example.snapshot, None, None
    column = example.item
    if example.chance is not None:
        columns, log_weight = drawn_columns(example.chance, example.item)
        column = torch.searchsorted(columns, example.item)
    _, seen = snapshot.seen(columns)
    total = network.trend.new_zeros(())
    for name, logits in zip(lists, network(snapshot, lists, columns=columns), strict=True):
        row, target = example.row, column
        if name == "discover":
            logits.view(-1).index_fill_(0, seen, -torch.inf)
            is_new = ~torch.isin(row * logits.shape[1] + target, seen)
            row, target = row[is_new], target[is_new]
        total = total + softmax_loss(logits, row, target, log_weight)
    return total * example.weight / len(snapshot.users)


def drawn_columns(chance: Tensor, targets: Tensor, dice: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """The items to score, ascending: negatives drawn by their chance, and the targets; and log(draws / expected draws) of each.

    With the latter added to their logits, the sum over the drawn estimates that over all items without bias (Bengio and
    Senécal 2008, "Adaptive importance sampling"); targets that were not drawn have −∞.
    """
    drawn, count = torch.unique(torch.multinomial(chance, NEGATIVES, True, generator=dice), return_counts=True)
    columns = torch.unique(torch.cat([drawn, targets]))
    log_weight = torch.full((len(columns),), -torch.inf, device=columns.device)
    log_weight[torch.searchsorted(columns, drawn)] = torch.log(count / (NEGATIVES * chance[drawn]))
    return columns, log_weight


def softmax_loss(logits: Tensor, row: Tensor, target: Tensor, log_weight: Tensor | None) -> Tensor:
    """−Σ_targets log p / √(targets of the row), p being the softmax over the columns, or what drawn ones estimate.

    logits: float32 [B, C]; row, target: int64 [N]; log_weight: of the drawn, float32 [C].
    """
    count = torch.bincount(row, minlength=len(logits)).float()
    positive = logits[row, target]
    if log_weight is None:
        log_sum = torch.logsumexp(logits, dim=1)[row]
    else:  # the positive counts as itself, whether it was drawn or not
        drawn = torch.logsumexp(logits + log_weight, dim=1)[row]
        share = (positive + log_weight[target] - drawn).exp().clamp(max=1 - 1e-6)
        log_sum = torch.logaddexp(drawn + torch.log1p(-share), positive)
    return -((positive - log_sum) * count[row].rsqrt()).sum()

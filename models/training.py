"""Training on many past dates: the graph as of each is the input, the events of the following horizon the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import decay
from models.network import Network
from models.settings import ModelSettings
from models.timeline import Snapshot, Timeline

CALIBRATION_STEP = 4.0  # times the learning rate, for the few numbers all users and items share
SCORES_PER_STEP = 2**23  # users times items of one optimizer step: 32 MB for each list
EVENTS_PER_DATE = 2**18  # of history that one past date is learned from: bounds time and memory in busy shops
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Example:
    """One step of training: B users at one past date, and what they did next."""

    snapshot: Snapshot
    row: Tensor  # int64 [N], position in snapshot.users
    item: Tensor  # int64 [N]
    weight: float


def fit(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    *,
    epochs: int,
    on_epoch: Callable[[int, Network], None] | None = None,
    progress: Progress | None = None,
) -> Network:
    """The network after `epochs` passes over the graph's past dates; on CPU, the same input gives the same bits.

    on_epoch is called with (epochs made, network) after each pass; progress with (steps made, steps in all).
    """
    device = graph.interactions.user_index.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        timeline = Timeline(graph, horizon_days, settings)
        network = new_network(timeline, settings).to(device)
        steps = examples(timeline, settings)
        optimizer = torch.optim.Adam(
            [{"params": [network.item, network.entity]}, {"params": network.calibration(), "step": CALIBRATION_STEP}],
            lr=settings.learning_rate,
        )
        total, done = settings.epochs * len(steps), 0
        for epoch in range(1, epochs + 1):
            network.train()
            for position in torch.randperm(len(steps)).tolist():
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * group.get("step", 1.0) * (1 + cos(pi * done / total)) / 2
                optimizer.zero_grad()
                loss(network, steps[position]).backward()
                optimizer.step()
                done += 1
                if progress:
                    progress(done, epochs * len(steps))
            network.eval()
            if on_epoch:
                on_epoch(epoch, network)
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
    """The past dates to learn from, newest first, each with users drawn up to `EVENTS_PER_DATE` events of history."""
    graph, horizon = timeline.graph, timeline.horizon_days
    users_per_step = max(1, SCORES_PER_STEP // max(1, graph.item_count))
    oldest = int(graph.interactions.age_days.max()) if len(graph.interactions.age_days) else 0
    result = []
    for back in range(horizon, oldest, settings.snapshot_every_days)[: settings.snapshot_count]:
        user, item = graph.targets(horizon, back)
        kept = timeline.known_users(back)[user] & timeline.live_items(back)[item]
        drawn = _drawn(timeline, torch.unique(user[kept]))
        kept &= torch.isin(user, drawn)
        user, item = user[kept], item[kept]
        weight = float(decay(torch.tensor(float(back)), settings.snapshot_half_life_days))
        for users in drawn.split(users_per_step) if len(drawn) else ():
            inside = (user >= users[0]) & (user <= users[-1])
            row = torch.searchsorted(users, user[inside])
            result.append(Example(timeline.at(back, users), row, item[inside], weight))
    return result


def _drawn(timeline: Timeline, users: Tensor) -> Tensor:
    """As many of the users, at random and ascending, as have `EVENTS_PER_DATE` events together; at least one."""
    order = torch.randperm(len(users)).to(users.device)
    events = (timeline.user_offsets[users + 1] - timeline.user_offsets[users])[order]
    return users[order[(torch.cumsum(events, 0) - events) < EVENTS_PER_DATE]].sort().values


def loss(network: Network, example: Example) -> Tensor:
    """−Σ_targets log p / √(targets of the user), of both lists, per user, times the date's weight.

    p is the softmax over live items; in `discover` over those the user has no event with, and so are the targets.
    """
    snapshot = example.snapshot
    for_you, discover = network(snapshot)
    discover.view(-1).index_fill_(0, snapshot.seen, -torch.inf)
    is_new = ~torch.isin(example.row * len(snapshot.live) + example.item, snapshot.seen)
    total = _softmax_loss(for_you, example.row, example.item)
    total = total + _softmax_loss(discover, example.row[is_new], example.item[is_new])
    return total * example.weight / len(snapshot.users)


def _softmax_loss(logits: Tensor, row: Tensor, item: Tensor) -> Tensor:
    count = torch.bincount(row, minlength=len(logits)).float()
    log_share = logits[row, item] - torch.logsumexp(logits, dim=1)[row]
    return -(log_share * count[row].rsqrt()).sum()

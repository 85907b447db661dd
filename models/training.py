"""Training on many past dates: at each, the graph of that day as input and the events of the following horizon as target."""

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
    """The network after `epochs` passes over the past dates of the graph; the same graph and settings give the same bits on CPU.

    on_epoch is called with (epochs made, network) after each pass; progress with (steps made, steps in all).
    """
    device = graph.interactions.user_index.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        network = new_network(graph, horizon_days, settings).to(device)
        steps = examples(Timeline(graph, horizon_days, settings), settings)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        total, done = settings.epochs * len(steps), 0
        for epoch in range(1, epochs + 1):
            network.train()
            for position in torch.randperm(len(steps)).tolist():
                optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 + cos(pi * done / total)) / 2
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


def new_network(graph: Graph, horizon_days: int, settings: ModelSettings) -> Network:
    """An untrained network of the graph's size; its trend and repeat start as plain popularity and recency."""
    none = torch.zeros(0, dtype=torch.int64, device=graph.interactions.user_index.device)
    sample = Timeline(graph, horizon_days, settings).at(0, none)
    return Network(
        graph.item_count, graph.entity_count, graph.event_types, horizon_days, len(sample.kernels), sample.trend.shape[1], settings
    )


def examples(timeline: Timeline, settings: ModelSettings) -> list[Example]:
    """The past dates to learn from, newest first, each cut into steps of at most `users_per_step` users."""
    graph, horizon = timeline.graph, timeline.horizon_days
    oldest = int(graph.interactions.age_days.max()) if len(graph.interactions.age_days) else 0
    result = []
    for number in range(settings.snapshot_count):
        back = horizon + number * settings.snapshot_every_days
        if back >= oldest:
            break
        user, item = graph.targets(horizon, back)
        kept = timeline.known_users(back)[user] & (graph.item_age_days[item] > back)
        user, item = user[kept], item[kept]
        weight = float(decay(torch.tensor(float(back)), settings.snapshot_half_life_days))
        for users in torch.unique(user).split(settings.users_per_step) if len(user) else ():
            inside = (user >= users[0]) & (user <= users[-1])
            row = torch.searchsorted(users, user[inside])
            result.append(Example(timeline.at(back, users), row, item[inside], weight))
    return result


def loss(network: Network, example: Example) -> Tensor:
    """Softmax loss of both lists: −Σ_targets log p / √(targets of the user), per user of a full step, times the date's weight."""
    lists = network(example.snapshot)
    seen = torch.isinf(lists[1][example.row, example.item])
    total = torch.zeros((), device=example.row.device)
    for logits, counted in zip(lists, (torch.ones_like(seen), ~seen), strict=True):
        row, item = example.row[counted], example.item[counted]
        count = torch.bincount(row, minlength=len(logits)).float()
        log_share = logits[row, item] - torch.logsumexp(logits, dim=1)[row]
        total = total - (log_share * count[row].rsqrt()).sum()
    return total * example.weight / len(example.snapshot.users)

"""Ratings by graph filters: two filter banks over the item graph, read at the item whose rating is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torch_geometric.nn import TAGConv

from models.graph import Interactions
from models.hops import Hop
from models.networks.pearson import PearsonOptions, item_graph

FEATURES = (64, 32)
TAPS = 5
PASSES = 10
LEARNING_RATE = 1e-2
USERS_PER_STEP = 32
ITEM_PRIOR, USER_PRIOR = 5.0, 5.0  # ratings of 0 that biases start from
BIAS_ROUNDS = 5
LEAST_STARS, MOST_STARS = 1.0, 5.0
Shift = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """What is known of everybody's ratings, and N ratings that are not among it."""

    shift: Hop
    signals: Tensor  # float32 [I, U, 2]: the rating less what the biases expect, 0 without; and 1 where rated
    user_index: Tensor  # int64 [N]
    item_index: Tensor  # int64 [N]
    expected: Tensor  # float32 [N], stars by the biases
    stars: Tensor  # float32 [N], the truth

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Users of a step, the ratings asked of them (int64 [M]) and the user of each as a place among them."""
        for users in order.split(USERS_PER_STEP):
            place = torch.full((self.signals.shape[1],), -1).index_copy_(0, users, torch.arange(len(users)))
            asked = torch.nonzero(place[self.user_index] >= 0).squeeze(1)
            yield users, asked, place[self.user_index[asked]]


def lesson(
    known: Interactions, asked: Interactions, user_count: int, item_count: int, options: PearsonOptions
) -> Lesson:
    """Graph, biases and signals of `known` alone; of `asked` only `stars` says what was given (`strength`)."""
    bias = biases(known, user_count, item_count)
    signals = torch.zeros(item_count, user_count, 2)
    given = torch.stack([known.strength - bias(known), torch.ones(len(known.strength))], dim=1)
    signals[known.item_index, known.user_index] = given
    shift = item_graph(known, user_count, item_count, options)
    return Lesson(shift, signals, asked.user_index, asked.item_index, bias(asked), asked.strength)


def lessons(
    ratings: Interactions, count: int, seed: int, user_count: int, item_count: int, options: PearsonOptions
) -> Iterator[Lesson]:
    """Each of `count` random parts of the ratings, asked of what the other parts know: as training is asked for a test."""
    part = torch.randint(count, ratings.strength.shape, generator=torch.Generator().manual_seed(seed))
    for number in range(count):
        known, asked = ratings.where(part != number), ratings.where(part == number)
        yield lesson(known, asked, user_count, item_count, options)


def biases(ratings: Interactions, user_count: int, item_count: int) -> Callable[[Interactions], Tensor]:
    """Stars expected of pairs: μ + b_i + b_u, each b the mean of what the others leave, drawn to 0; float32 [N]."""
    user, item, stars = ratings.user_index, ratings.item_index, ratings.strength
    mean, of_item, of_user = stars.mean(), torch.zeros(item_count), torch.zeros(user_count)
    item_mass = torch.bincount(item, minlength=item_count) + ITEM_PRIOR
    user_mass = torch.bincount(user, minlength=user_count) + USER_PRIOR
    for _ in range(BIAS_ROUNDS):
        of_item = torch.zeros(item_count).index_add_(0, item, stars - mean - of_user[user]) / item_mass
        of_user = torch.zeros(user_count).index_add_(0, user, stars - mean - of_item[item]) / user_mass
    return lambda pairs: mean + of_item[pairs.item_index] + of_user[pairs.user_index]


class FilterBank(TAGConv):
    """y = Σ_k S^k x H_k + b with `taps` matrices H_k: PyG's TAGConv (Du et al. 2017, arXiv 1710.10370), S given.

    x: float32 [I, ..., F] → [I, ..., G]. The filter banks of Huang, Marques and Ribeiro 2018 (IEEE TSP 66, 19).
    """

    def __init__(self, features: int, features_out: int, taps: int) -> None:
        super().__init__(features, features_out, K=taps - 1, normalize=False)

    def forward(self, x: Tensor, shift: Shift) -> Tensor:
        if self.in_channels <= self.out_channels:
            return super().forward(x, shift)  # pyright: ignore[reportArgumentType]
        y = self.lins[-1](x)  # x H_0 + S (x H_1 + S (x H_2 + …)): the hops carry the fewer features
        for tap in self.lins[-2::-1]:
            y = tap(x) + self.propagate(shift, y)
        return y + self.bias

    def propagate(self, edge_index: Any, x: Tensor, **_: Any) -> Tensor:
        return edge_index(x.flatten(1)).view_as(x)


class RatingFilter(nn.Module):
    """relu(bank(relu(bank(x)))) and a linear readout, the same at every item and of that item alone.

    signals: float32 [I, B, 2] of B users; item_index, place: int64 [M], which item of which of them is asked for.
    Returns the rating above what the biases expect, float32 [M].
    """

    def __init__(self, features: Sequence[int] = FEATURES, taps: int = TAPS) -> None:
        super().__init__()
        sizes = (2, *features)
        self.banks = nn.ModuleList(FilterBank(a, b, taps) for a, b in pairwise(sizes))
        self.readout = nn.Linear(sizes[-1], 1)

    def forward(self, signals: Tensor, shift: Shift, item_index: Tensor, place: Tensor) -> Tensor:
        for bank in self.banks:
            signals = bank(signals, shift).relu()
        return self.readout(signals[item_index, place]).squeeze(1)


def fit(
    build: Callable[[], nn.Module],
    course: Sequence[Lesson],
    seed: int,
    passes: int = PASSES,
    learning_rate: float = LEARNING_RATE,
) -> nn.Module:
    """The network that `build` makes, after `passes` through all users, each on the next lesson: smooth L1, Adam."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build()
    dice = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, total_iters=passes - 1 or 1)
    for number in range(passes):
        now = course[number % len(course)]
        for users, asked, place in now.batches(torch.randperm(now.signals.shape[1], generator=dice)):
            above = network(now.signals[:, users], now.shift, now.item_index[asked], place)
            loss = smooth_l1_loss(above, (now.stars - now.expected)[asked])
            if len(asked):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def foresee(network: nn.Module, asked_of: Lesson) -> Tensor:
    """Stars of the ratings asked for, within the scale: float32 [N]."""
    stars = asked_of.expected.clone()
    for users, asked, place in asked_of.batches(torch.arange(asked_of.signals.shape[1])):
        stars[asked] += network(asked_of.signals[:, users], asked_of.shift, asked_of.item_index[asked], place)
    return stars.clamp(LEAST_STARS, MOST_STARS)

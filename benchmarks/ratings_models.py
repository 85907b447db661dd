"""What `benchmarks.ratings` compares: forecasts of the ratings `asked` for from those `known`, stars, float32 [N]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.graph import Interactions
from models.networks.filters import (
    LEAST_STARS,
    MOST_STARS,
    TAPS,
    Lesson,
    Shift,
    biases,
    fit,
    foresee,
    lesson,
    lessons,
)
from models.networks.pearson import PearsonOptions

USERS, MOVIES = 943, 1682
LEAST_NODE_RATINGS = 10  # training ratings of a movie that is a node; the others hold 3 % of the ratings
LESSONS = 10
RIDGE = 1.0
SEED = 0
SVD_STEPS = {"n_epochs": 80, "lr_all": 0.01}
Forecast = Callable[[Interactions, Interactions], Tensor]


def movie_mean(known: Interactions, asked: Interactions) -> Tensor:
    total = torch.zeros(MOVIES).index_add_(0, known.item_index, known.strength)
    return (total / torch.bincount(known.item_index, minlength=MOVIES).clamp(min=1))[asked.item_index]


def user_and_movie_biases(known: Interactions, asked: Interactions) -> Tensor:
    return biases(known, USERS, MOVIES)(asked).clamp(LEAST_STARS, MOST_STARS)


def on_nodes(known: Interactions, asked: Interactions) -> tuple[Interactions, Interactions, int]:
    """Both on the movies often rated or asked for, numbered anew, and how many these are."""
    node = torch.bincount(known.item_index, minlength=MOVIES) >= LEAST_NODE_RATINGS
    node[asked.item_index] = True
    number = torch.cumsum(node, 0) - 1
    parts = (part.where(node[part.item_index]) for part in (known, asked))
    known, asked = (replace(part, item_index=number[part.item_index]) for part in parts)
    return known, asked, int(node.sum())


def taps(of: Lesson) -> Tensor:
    """(S^k x)_ui of both signals, k = 0..K−1, and 1, for every rating asked for: float64 [N, 2K + 1]."""
    powers = [of.signals.flatten(1)]
    for _ in range(TAPS - 1):
        powers.append(of.shift(powers[-1]))
    asked = [power.view_as(of.signals)[of.item_index, of.user_index] for power in powers]
    return torch.cat([*asked, torch.ones(len(of.stars), 1)], dim=1).double()


def linear_filter(known: Interactions, asked: Interactions, options: PearsonOptions, count: int = LESSONS) -> Tensor:
    """Σ_k h_k S^k x, both signals, h by least squares on `count` of the lessons (FIR)."""
    known, asked, items = on_nodes(known, asked)
    course = lessons(known, LESSONS, SEED, USERS, items, options)
    parts = [(taps(now), now.stars - now.expected) for now, _ in zip(course, range(count), strict=False)]
    inputs, above = (torch.cat(columns) for columns in zip(*parts, strict=True))
    size = inputs.square().mean(0).sqrt().clamp(min=1e-12)
    inputs = inputs / size
    regular = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
    weights = torch.linalg.solve(regular, inputs.T @ above.double()) / size
    last = lesson(known, asked, USERS, items, options)
    return (last.expected + (taps(last) @ weights).float()).clamp(LEAST_STARS, MOST_STARS)


class Perceptron(nn.Module):
    """The same signals, sizes and loss without a graph: every movie an input, every movie its own readout."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * items, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.readout = nn.Linear(32, items)

    def forward(self, signals: Tensor, shift: Shift, item_index: Tensor, place: Tensor) -> Tensor:
        return self.readout(self.layers(signals.transpose(0, 1).flatten(1)))[place, item_index]


def network(
    known: Interactions,
    asked: Interactions,
    options: PearsonOptions,
    build: Callable[[int], nn.Module],
    **steps: Any,
) -> Tensor:
    """`build(items)`, taught by lessons; steps: `passes` and `learning_rate` of `models.networks.filters.fit`."""
    known, asked, items = on_nodes(known, asked)
    learned = fit(partial(build, items), list(lessons(known, LESSONS, SEED, USERS, items, options)), SEED, **steps)
    return foresee(learned, lesson(known, asked, USERS, items, options))


def surprise(known: Interactions, asked: Interactions, algorithm: Callable[[], Any]) -> Tensor:
    """A model of the package Surprise (Hug 2020, JOSS 5, 52), which clips to the scale itself."""
    from surprise import Dataset, Reader  # pyright: ignore[reportMissingImports]

    def rows(part: Interactions) -> list[tuple[int, int, float]]:
        return list(zip(part.user_index.tolist(), part.item_index.tolist(), part.strength.tolist(), strict=True))

    data = Dataset(Reader(rating_scale=(LEAST_STARS, MOST_STARS)))
    learned = algorithm().fit(data.construct_trainset([(*row, None) for row in rows(known)]))
    return torch.tensor([learned.predict(user, item).est for user, item, _ in rows(asked)])


def item_knn(options: dict[str, Any]) -> Forecast:
    from surprise import KNNBaseline  # pyright: ignore[reportMissingImports]

    alike = {"name": "pearson_baseline", "user_based": False, "shrinkage": options["shrinkage"]}
    build = partial(KNNBaseline, k=options["k"], sim_options=alike, bsl_options={"method": "als"}, verbose=False)
    return partial(surprise, algorithm=build)


def biased_svd(options: dict[str, Any]) -> Forecast:
    from surprise import SVD  # pyright: ignore[reportMissingImports]

    return partial(surprise, algorithm=partial(SVD, **options, **SVD_STEPS, random_state=SEED))

"""Rating prediction on MovieLens-100K by graph filters: the official folds u1–u5, every movie with 50 or more test ratings.

Run: python -m benchmarks.ratings [u1 … u5] [--decayed] (needs ALMANAC_DATA; `pip install -e '.[peers]'` adds the rows of
Surprise). The experiment of Alelab's lectures: Pearson graph of training ratings, two filter banks of 64 and 32 features and
5 taps, ReLU, readout at the target, smooth L1, Adam; here one network for all movies instead of one for each. Graph and
peers' options are chosen per fold by RMSE on a tenth of its training ratings. The folds are random, not in order of time: a
training rating may be younger than a test rating, so nothing here says how well tomorrow's ratings are foreseen. Skill is
1 − MSE / MSE of the movie's training mean. `--decayed` adds a network whose graph forgets. CPU time is of fit and forecast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.ratings_models import (
    MOVIES,
    SEED,
    Forecast,
    Perceptron,
    biased_svd,
    item_knn,
    linear_filter,
    movie_mean,
    network,
    user_and_movie_biases,
)
from models.graph import Interactions
from models.kernels import week_phase, year_phase
from models.metrics import ONE_SIDED_90, paired_difference
from models.networks.filters import RatingFilter
from models.networks.pearson import PearsonOptions

FOLDS = ("u1", "u2", "u3", "u4", "u5")
LEAST_TEST_RATINGS = 50
VALIDATION_PARTS = 10
GRAPHS = tuple(PearsonOptions(shrinkage, top_k) for shrinkage, top_k in product((30, 100), (50, 100)))
FORGETTING_DAYS = 90.0
KNN_GRID = [{"k": k, "shrinkage": shrinkage} for k, shrinkage in product((20, 40), (50, 100))]
SVD_GRID = [{"n_factors": factors, "reg_all": ridge} for factors, ridge in product((50, 100), (0.05, 0.1))]
MLP_GRID = [{"passes": passes, "learning_rate": rate} for passes, rate in product((20, 40), (1e-3, 3e-3))]
OURS = "graph filter 64-32"
MIXED = ("item-KNN (Surprise)", "biased SVD (Surprise)", OURS)
TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Fold:
    """Training ratings, those among them that choices are made on, and the test ratings of the movies judged."""

    name: str
    train: Interactions
    choosing: Tensor  # bool [E]
    test: Interactions

    @classmethod
    def read(cls, name: str) -> Fold:
        parts = [_rows(name, part) for part in ("base", "test")]
        last = max(int(part[:, 3].max()) for part in parts)
        train, test = (_interactions(part, last) for part in parts)
        movies = torch.bincount(test.item_index, minlength=MOVIES) >= LEAST_TEST_RATINGS
        dice = torch.Generator().manual_seed(SEED)
        choosing = torch.randint(VALIDATION_PARTS, train.strength.shape, generator=dice) == 0
        return cls(name, train, choosing, test.where(movies[test.item_index]))

    def best(self, candidates: Iterable[Any], forecast: Callable[[Any], Forecast]) -> Any:
        """The candidate whose forecast is nearest, on what is set aside of training and of movies with many of these."""
        known, asked = self.train.where(~self.choosing), self.train.where(self.choosing)
        many = torch.bincount(asked.item_index, minlength=MOVIES) >= LEAST_TEST_RATINGS * len(asked.strength) / 20_000
        asked = asked.where(many[asked.item_index])
        return min(
            candidates, key=lambda option: float((forecast(option)(known, asked) - asked.strength).square().sum())
        )


def _rows(name: str, part: str) -> Tensor:
    lines = (Path(os.environ["ALMANAC_DATA"]) / "ml-100k" / f"{name}.{part}").read_text().splitlines()
    return torch.tensor([[int(cell) for cell in line.split("\t")] for line in lines])


def _interactions(rows: Tensor, last_second: int) -> Interactions:
    """user, item, stars, second → events as of the day after the last second of all."""
    as_of = datetime.fromtimestamp(last_second, UTC).date() + timedelta(days=1)
    dates = [datetime.fromtimestamp(second, UTC).date() for second in rows[:, 3].tolist()]
    ages = torch.tensor([(as_of - day).days for day in dates], dtype=torch.int32)
    of_year, of_week = (torch.tensor([phase(day) for day in dates]) for phase in (year_phase, week_phase))
    user, item, stars = rows[:, 0] - 1, rows[:, 1] - 1, rows[:, 2].float()
    return Interactions(user, item, torch.zeros_like(user), ages, stars, of_year, of_week, torch.full_like(ages, 24))


def forecasts(fold: Fold, decayed: bool) -> dict[str, Forecast]:
    """The rows of the table, each with what the fold's own training ratings chose."""
    graph = fold.best(GRAPHS, lambda options: partial(linear_filter, options=options, count=1))
    perceptron = partial(network, options=graph, build=Perceptron)
    steps = fold.best(MLP_GRID, lambda steps: partial(perceptron, **steps))
    print(fold.name, graph, steps, file=sys.stderr)
    forgetting = replace(graph, half_life_days=FORGETTING_DAYS)
    seasonal = replace(graph, query_phase=float(fold.train.year_phase[fold.train.age_days.argmin()]))
    filters = partial(network, build=lambda _: RatingFilter())
    rows: dict[str, Forecast] = {"movie mean": movie_mean, "user and movie biases": user_and_movie_biases}
    if find_spec("surprise"):
        rows["item-KNN (Surprise)"] = item_knn(fold.best(KNN_GRID, item_knn))
        rows["biased SVD (Surprise)"] = biased_svd(fold.best(SVD_GRID, biased_svd))
    rows |= {
        "MLP without graph": partial(perceptron, **steps),
        "linear graph filter": partial(linear_filter, options=graph),
        f"linear graph filter, half-life {FORGETTING_DAYS:g} days": partial(linear_filter, options=forgetting),
        "linear graph filter, season of the last day": partial(linear_filter, options=seasonal),
        OURS: partial(filters, options=graph),
    }
    if decayed:
        rows[f"{OURS}, half-life {FORGETTING_DAYS:g} days"] = partial(filters, options=forgetting)
    return rows


def judge(fold: Fold, decayed: bool) -> dict[str, tuple[Tensor, float]]:
    """Stars foreseen by each row, and the CPU seconds it took."""
    found = {}
    for name, forecast in forecasts(fold, decayed).items():
        start = process_time()
        stars = forecast(fold.train, fold.test)
        found[name] = stars, process_time() - start
        print(fold.name, name, f"{float((stars - fold.test.strength).square().mean().sqrt()):.4f}", file=sys.stderr)
    if set(MIXED) <= set(found):
        parts = [found[name] for name in MIXED]
        mixed = torch.stack([stars for stars, _ in parts]).mean(0)
        found["mean of KNN, SVD and graph filter"] = mixed, sum(seconds for _, seconds in parts)
    return found


def table(folds: list[Fold], found: list[dict[str, tuple[Tensor, float]]]) -> str:
    """Markdown: RMSE of each fold, and over all of them RMSE, MAE, skill, and the gain on the graph filter in MSE."""
    truth = torch.cat([fold.test.strength for fold in folds])
    users = torch.cat([fold.test.user_index for fold in folds])
    errors = {name: torch.cat([each[name][0] for each in found]) - truth for name in found[0]}
    sizes = [len(fold.test.strength) for fold in folds]
    titles = [
        "model",
        *(f"RMSE {fold.name}" for fold in folds),
        "RMSE",
        "MAE",
        "skill",
        "MSE − graph filter's",
        "CPU s",
    ]
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for name, error in errors.items():
        squares = [error.square(), errors["movie mean"].square(), errors[OURS].square()]
        rmse = [float(part.mean().sqrt()) for part in (*squares[0].split(sizes), squares[0])]
        difference, low = paired_difference(squares[0], squares[2], users)
        half = (difference - low) * TWO_SIDED_95 / ONE_SIDED_90
        cells = [f"{value:.4f}" for value in (*rmse, error.abs().mean(), 1 - squares[0].mean() / squares[1].mean())]
        seconds = sum(each[name][1] for each in found)
        lines.append(f"| {name} | {' | '.join(cells)} | {difference:+.4f} ± {half:.4f} | {seconds:.0f} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measures every row on every fold asked for, and prints the table."""
    torch.set_num_threads(1)
    folds = [Fold.read(name) for name in FOLDS if name in arguments or not set(FOLDS) & set(arguments)]
    found = [judge(fold, "--decayed" in arguments) for fold in folds]
    print(table(folds, found))
    movies = sum(len(fold.test.item_index.unique()) for fold in folds)
    print(f"\n{sum(len(fold.test.strength) for fold in folds)} test ratings of {movies} movies of {len(folds)} folds.")


if __name__ == "__main__":
    main(sys.argv[1:])

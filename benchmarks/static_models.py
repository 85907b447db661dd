"""What `benchmarks.static` compares: Almanac's models without decay, their stack, and the models of implicit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from importlib.util import find_spec
from itertools import product
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.baselines import BASELINES
from models.graph import NEVER, Edges, Graph, Interactions
from models.neighbours import sparse_weights
from models.ranking import Ranker
from models.settings import ModelSettings

STAR_POWERS = (0.0, 1.0)  # strength = (stars / 4)^power; 0 = all ratings alike
Options = dict[str, Any]
Grid = dict[str, tuple[float, ...]]

GRIDS: dict[str, dict[str, Grid]] = {
    "ml-100k": {
        "popularity": {},
        "item_knn": {"neighbours": (20, 50, 100, 200)},
        "ease": {"ridge": (200, 300, 400, 600), "star_power": STAR_POWERS},
        "graph_filter": {"rank": (32, 64), "low_pass": (0.3, 1.0), "item_power": (0.4, 0.5)},
        "ials": {"factors": (128,), "unobserved": (0.2, 0.3), "ridge": (0.016, 0.024), "star_power": STAR_POWERS},
        "lightgcn": {"dimension": (128,), "temperature": (0.2,), "epochs": (60, 90), "star_power": STAR_POWERS},
        "ngcf": {"layers": (1, 2), "epochs": (80, 160), "temperature": (0.2,), "head": (0.0,)},
        "implicit_als": {"factors": (64, 128), "alpha": (1, 3, 10), "regularization": (3, 10, 30, 100)},
        "implicit_bpr": {"factors": (64,), "learning_rate": (0.01, 0.03), "regularization": (0.01, 0.03, 0.1)},
        "implicit_cosine": {"K": (20, 50, 100, 200)},
    },
    "gowalla": {
        "popularity": {},
        "graph_filter": {"rank": (512,), "low_pass": (0.3,), "item_power": (0.5,), "damping": (0.0, 0.1)},
        "ials": {"factors": (384,), "unobserved": (0.015,), "ridge": (6e-4, 1.5e-3), "rounds": (4, 5)},
        "implicit_als": {"factors": (128,), "alpha": (10,), "regularization": (10, 100)},
        "implicit_bpr": {"factors": (128,), "learning_rate": (0.05,), "regularization": (0.01,)},
        "implicit_cosine": {"K": (50, 100)},
    },
}
STACKS = {"ml-100k": ("ials", "lightgcn", "ease"), "gowalla": ("graph_filter", "ials")}
BAGS = {"ml-100k": 4, "gowalla": 1}  # fits of which each part of a stack is the mean


def choices(grid: Grid) -> list[Options]:
    """Every combination of the grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def undated(user: Tensor, item: Tensor, stars: Tensor, user_count: int, item_count: int) -> Graph:
    """A graph of distinct pairs, all of yesterday; stars (0 = none given) become strength (stars / 4) or 1."""
    order = torch.argsort(user * item_count + item)
    user, item, stars = user[order], item[order], stars[order]
    none, same = torch.zeros(0, dtype=torch.int64), torch.zeros(len(user))
    edges = Edges(none, none, none, torch.zeros(0), none.int())
    strength = torch.where(stars > 0, stars / 4, 1.0)
    days = torch.ones(len(user)).int()
    events = Interactions(user, item, torch.zeros_like(user), days, strength, same, same, 24 * days)
    known = torch.ones(item_count, dtype=torch.int32)
    segment = torch.zeros(user_count, dtype=torch.int64)
    features = torch.zeros(item_count, 0), torch.zeros(user_count, 0)
    return Graph(
        date(2000, 1, 1), user_count, item_count, 0, ("rating",), (), events, known, -NEVER * known, *features, segment,
        edges, edges, edges, edges,
    )  # fmt: skip


def fit(model: str, graph: Graph, options: Options, seed: int) -> Ranker:
    """The model of that name, learned from the whole graph."""
    own = dict(options)
    strength = graph.interactions.strength ** own.pop("star_power", 0.0)
    graph = replace(graph, interactions=replace(graph.interactions, strength=strength))
    if model.startswith("implicit_"):
        return _fit_implicit(model, graph, own, seed)
    if "half_life" in BASELINES[model].default:
        own |= {"half_life": inf}
    return BASELINES[model].learn(graph, 1, ModelSettings(seed=seed), **own)(graph)


def fit_bag(model: str, graph: Graph, bag: list[Options], seed: int) -> Ranker:
    """The mean of fits with each of the options, whose random starts differ (Breiman 1996, without resampling)."""
    fits = tuple(fit(model, graph, options, seed + 100 * place) for place, options in enumerate(bag))
    return fits[0] if len(fits) == 1 else Stack(model, fits, (1.0,) * len(fits))


@dataclass(frozen=True)
class Scored:
    """score(u, i) = users[u] · items[:, i], with no item as the reason."""

    name: str
    users: Any  # [U, D], a matrix of numpy or scipy
    items: Any  # [D, I]

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        rows = self.users[users.numpy()] @ self.items
        return torch.from_numpy(np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), np.float32))

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        none = torch.full_like(items, -1)
        return ["taste"] * len(items), none, none


def _fit_implicit(model: str, graph: Graph, options: Options, seed: int) -> Ranker:
    from implicit.als import AlternatingLeastSquares  # pyright: ignore[reportMissingImports]
    from implicit.bpr import BayesianPersonalizedRanking  # pyright: ignore[reportMissingImports]
    from implicit.nearest_neighbours import CosineRecommender  # pyright: ignore[reportMissingImports]
    from scipy.sparse import csr_matrix

    ratings = csr_matrix(sparse_weights(graph, inf))
    if model == "implicit_cosine":
        learned = CosineRecommender(**options)
        learned.fit(ratings, show_progress=False)
        return Scored(model, ratings, csr_matrix(learned.similarity).T.tocsr())
    kind = AlternatingLeastSquares if model == "implicit_als" else BayesianPersonalizedRanking
    learned = kind(**options, random_state=seed, num_threads=1)
    learned.fit(ratings, show_progress=False)
    return Scored(model, learned.user_factors, learned.item_factors.T)


def installed(model: str) -> bool:
    """Whether the model's package is here."""
    return not model.startswith("implicit_") or find_spec("implicit") is not None


@dataclass(frozen=True)
class Remembered:
    """Scores computed before: float32 [N, I], a row per user of `users` (int64 [N], ascending)."""

    name: str
    users: Tensor
    rows: Tensor

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        return self.rows[torch.searchsorted(self.users, users)]

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        none = torch.full_like(items, -1)
        return ["taste"] * len(items), none, none


@dataclass(frozen=True)
class Stack:
    """Σ_m w_m z_m(u, i), z_m: model m's scores of a user, less their mean, by their standard deviation over all items."""

    name: str
    parts: tuple[Ranker, ...]
    weights: tuple[float, ...]

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        total = torch.zeros(1)
        for part, weight in zip(self.parts, self.weights, strict=True):
            if weight:
                scores = part.scores(users, list_name)
                spread, mean = torch.std_mean(scores, dim=1, keepdim=True)
                total = total + (scores - mean) * (weight / spread.clamp(min=1e-12))
        return total

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return self.parts[0].explain(users, items, list_name)

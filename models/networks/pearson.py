"""The item graph of ratings: which items are rated alike, by Pearson correlation, as of a date and a time of year."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigsh
from torch import Tensor

from models.graph import Interactions
from models.hops import Hop
from models.kernels import YEAR_CONCENTRATION, decay, phase_match
from models.propagation import Adjacency

LEAST_SHARE_OF_SQUARE = 1e-9  # a smaller share of the squares than this in a variance is rounding


@dataclass(frozen=True)
class PearsonOptions:
    """How ratings become a graph; without half-life and phase all ratings count alike."""

    shrinkage: float = 100.0  # co-ratings at which a correlation counts by half
    top_k: int = 50  # neighbours that an item chooses
    half_life_days: float = inf
    query_phase: float | None = None  # of the year, 0..1; None = all seasons alike


def item_graph(ratings: Interactions, user_count: int, item_count: int, options: PearsonOptions) -> Hop:
    """The shift S of these ratings' Pearson graph; `strength` is what was rated. `item_graph(...)(x)` is S @ x."""
    weight = rating_weights(ratings, options.half_life_days, options.query_phase)
    correlation, co_rated = pearson(ratings, user_count, item_count, weight)
    return shift_operator(correlation, co_rated, options.shrinkage, options.top_k)


def rating_weights(ratings: Interactions, half_life_days: float = inf, query_phase: float | None = None) -> Tensor:
    """2^(−age/half-life), times the match with the phase of the year if one is given: float64 [E], 1 without both."""
    weight = decay(ratings.age_days.double(), half_life_days)
    if query_phase is None:
        return weight
    return weight * phase_match(ratings.year_phase.double(), query_phase, YEAR_CONCENTRATION)


def pearson(
    ratings: Interactions, user_count: int, item_count: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted Pearson correlation of every two items over the users who rated both, and the weight of these users.

    With v = √(w_ui w_uj), n = Σ_u v and m_i = Σ_u v x_ui / n: r_ij = (Σ_u v x_ui x_uj / n − m_i m_j) / (s_i s_j); a
    co-rating is thus as old as its two ratings are on average. Means m and spreads s are over the pair's own users; 0
    where a spread is 0. weight: [E], 1 without. A pair rated twice counts once, by its weighted mean and summed weight.
    Dense: float64 [I, I] each, so for thousands of items.
    """
    weight = torch.ones(len(ratings.strength)) if weight is None else weight
    pair = ratings.user_index * item_count + ratings.item_index
    total, mass = (
        torch.zeros(user_count * item_count, dtype=torch.float64).index_add_(0, pair, column.double())
        for column in (weight * ratings.strength, weight)
    )
    root = mass.sqrt()
    x = total / mass.clamp(min=1e-300) - ratings.strength.double().mean()  # near 0, where squares keep their digits
    v, vx, vxx = (column.view(user_count, item_count) for column in (root, root * x, root * x * x))
    n, first, second = v.T @ v, vx.T @ v, vxx.T @ v  # first, second: of the row's item, over the users of both
    variance = n * second - first**2
    variance = torch.where(variance > LEAST_SHARE_OF_SQUARE * n * second, variance, 0.0)
    spread = (variance * variance.T).sqrt()
    covariance = n * (vx.T @ vx) - first * first.T
    return torch.where(spread > 0, covariance / spread.clamp(min=1e-300), 0.0).clamp(-1, 1), n


def shift_operator(correlation: Tensor, co_rated: Tensor, shrinkage: float, top_k: int) -> Hop:
    """The graph's shift S: r_ij · n_ij / (n_ij + shrinkage) of pairs among the top k of either item, without loops.

    The top are the largest by absolute value. S is symmetric, and divided by its eigenvalue of largest absolute value.
    correlation, co_rated: [I, I].
    """
    shrunk = (correlation * co_rated / (co_rated + shrinkage).clamp(min=1e-300)).fill_diagonal_(0)
    count = len(shrunk)
    nearest = shrunk.abs().topk(min(top_k, count), dim=1).indices
    chosen = torch.zeros_like(shrunk, dtype=torch.bool).scatter_(1, nearest, True)
    row, column = torch.nonzero((chosen | chosen.T) & (shrunk != 0), as_tuple=True)
    weight = shrunk[row, column]
    weight = weight / _largest_eigenvalue(row, column, weight, count)
    return Hop(Adjacency.build(row, column, count, count), weight.float())


def _largest_eigenvalue(row: Tensor, column: Tensor, weight: Tensor, count: int) -> float:
    """The largest absolute eigenvalue of a symmetric matrix, by its entries; 1 where it has none."""
    if not len(weight):
        return 1.0
    matrix = csr_array((weight.numpy(), (row.numpy(), column.numpy())), shape=(count, count))
    if count < 10:
        return float(np.abs(np.linalg.eigvalsh(matrix.toarray())).max())
    return float(np.abs(eigsh(matrix, k=1, v0=np.ones(count), return_eigenvectors=False)[0]))

"""Implicit alternating least squares: each side's vectors are the exact optimum given the other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from models.factorisation import Factors
from models.graph import Graph
from models.neighbours import sparse_weights
from models.ranking import Ranker
from models.settings import ModelSettings

FACTORS = 256
ROUNDS = 8
UNOBSERVED = 0.1  # α₀
RIDGE = 0.01  # λ
NUMBERS_PER_BATCH = 2**22  # of the histories' vectors: 16 MB


def fit_als(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    factors: int = FACTORS,
    unobserved: float = UNOBSERVED,
    ridge: float = RIDGE,
    rounds: int = ROUNDS,
) -> Callable[[Graph], Ranker]:
    """iALS (Hu et al. 2008; Rendle et al. 2022, arXiv 2110.14037) with decayed confidence.

    Minimises Σ c_ui (1 − p_u·q_i)² + α₀ Σ_all (p_u·q_i)² + λ Σ_u (Σ_i c_ui + α₀ I) |p_u|² + the same for items, where
    c_ui = √(Σ strength · 2^(−age/half-life)). A later graph's users are solved for anew from their history.
    """
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    dice = torch.Generator(device).manual_seed(settings.seed)
    items = torch.randn(graph.item_count, factors, generator=dice, device=device) * 0.1 / factors**0.5
    by_user = sparse_weights(graph, half_life_days)
    by_item = by_user.T.tocsr()
    for _ in range(rounds):
        items = solve(by_item, solve(by_user, items, unobserved, ridge), unobserved, ridge)

    def refresh(now: Graph) -> Ranker:
        users = solve(sparse_weights(now, half_life_days), items, unobserved, ridge)
        return Factors("ials", now, half_life_days, users, items, torch.zeros(now.item_count, device=device))

    return refresh


def solve(confidence: Any, fixed: Tensor, unobserved: float = UNOBSERVED, ridge: float = RIDGE) -> Tensor:
    """One side's vectors w given the other's y: float32 [R, D], 0 for rows without history.

    Each minimises Σ_j c_j (1 − w·y_j)² + α₀ Σ_all (w·y)² + λ (Σ_j c_j + α₀ N) |w|². confidence: scipy CSR [R, N].
    In the basis in which α₀ YᵀY is diagonal, rows shorter than D need only a system of their own length (Woodbury).
    """
    device = fixed.device
    start, column = (torch.from_numpy(part).long().to(device) for part in (confidence.indptr, confidence.indices))
    root = torch.from_numpy(confidence.data).to(device).sqrt()
    spectrum, basis = torch.linalg.eigh(unobserved * fixed.T @ fixed)
    rotated = fixed @ basis
    ridges = ridge * (torch.from_numpy(confidence.sum(axis=1)).to(device) + unobserved * len(fixed))
    solved = torch.zeros(len(start) - 1, fixed.shape[1], device=device)
    for rows, place, inside in _batches(start, fixed.shape[1]):
        weight = root[place] * inside
        history = rotated[column[place]] * weight[..., None]
        scale = spectrum + ridges[rows, None]
        if history.shape[1] < history.shape[2]:
            inner = (history / scale[:, None]) @ history.mT
            inner.diagonal(dim1=1, dim2=2).add_(1)
            dual = torch.cholesky_solve(weight[..., None], torch.linalg.cholesky(inner))
            solved[rows] = (history.mT @ dual).squeeze(2) / scale
        else:
            inner = history.mT @ history
            inner.diagonal(dim1=1, dim2=2).add_(scale)
            solved[rows] = torch.cholesky_solve(history.mT @ weight[..., None], torch.linalg.cholesky(inner)).squeeze(2)
    return solved @ basis.T


def _batches(start: Tensor, dimension: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows of about equal length, longest first: their indices [B], their entries' places [B, L], which of them are real."""
    count = start.diff()
    order = count.argsort(descending=True, stable=True)
    order = order[count[order] > 0]
    while len(order):
        length = int(count[order[0]])
        rows, order = order.tensor_split([max(1, NUMBERS_PER_BATCH // (length * dimension))])
        step = torch.arange(length, device=start.device)
        inside = step < count[rows, None]
        yield rows, torch.where(inside, start[rows, None] + step, 0), inside

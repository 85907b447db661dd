"""Graph filtering: a closed form of propagation, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import diags_array
from torch import Tensor

from models.factorisation import nearest_in_history
from models.graph import Graph
from models.neighbours import sparse_weights
from models.ranking import Ranker
from models.settings import ModelSettings

RANK = 256
LOW_PASS = 0.3  # α
ITEM_POWER = 0.5  # β
POWER_ITERATIONS = 4


@dataclass(frozen=True)
class GraphFilter:
    """r_u (R̃ᵀR̃ + α D_I^(−β) V Vᵀ D_I^β), r_u being the user's decayed history as of the graph's date."""

    name: str
    graph: Graph
    half_life_days: float
    history: Any  # scipy CSR [U, I]
    gram: Any  # scipy CSR [I, I], R̃ᵀR̃
    damped: Tensor  # float32 [I, K], α D_I^(−β) V
    raised: Tensor  # float32 [I, K], D_I^β V

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        history = self.history[users.cpu().numpy()]
        near = torch.from_numpy((history @ self.gram).toarray()).to(self.damped.device)
        return near.addmm_(torch.from_numpy(history @ self.damped.cpu().numpy()).to(self.damped.device), self.raised.T)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return nearest_in_history(self.graph, self.half_life_days, self.raised, users, items)


def fit_graph_filter(
    graph: Graph,
    horizon_days: int,
    settings: ModelSettings,
    half_life: float,
    rank: int = RANK,
    low_pass: float = LOW_PASS,
    item_power: float = ITEM_POWER,
    damping: float = 0.0,
) -> Callable[[Graph], Ranker]:
    """GF-CF (Shen et al. 2021, arXiv 2108.07567) on decayed weights.

    R̃ = D_U^(−½) R D_I^(−β) with R = √(Σ strength · 2^(−age/half-life)); V: its first `rank` right singular vectors.
    The paper's β is ½; a larger one favours rare items. damping: γ in V diag(α − γ σ²) Vᵀ, σ being the singular values: it
    takes back some of what the first term gives to the main directions.
    """
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    weights = sparse_weights(graph, half_life_days)
    user_degree, item_degree = weights.sum(axis=1).clip(1e-30), weights.sum(axis=0)
    root = item_degree**item_power
    inverse_root = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
    normal = (diags_array(user_degree**-0.5) @ weights @ diags_array(inverse_root)).tocsr()
    values, vectors = (part.to(device) for part in _singular(normal, rank, settings.seed))
    damped = (low_pass - damping * values.square()) * vectors * torch.from_numpy(inverse_root).to(device)[:, None]
    raised = vectors * torch.from_numpy(root).to(device)[:, None]
    gram = (normal.T @ normal).tocsr()

    def refresh(now: Graph) -> Ranker:
        history = sparse_weights(now, half_life_days)
        return GraphFilter("graph_filter", now, half_life_days, history, gram, damped, raised)

    return refresh


def _singular(matrix: Any, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first `rank` singular values and right vectors of a scipy CSR array [U, I], by randomised subspace iteration.

    float32 [K] and [I, K].
    """
    sparse = matrix.tocoo()
    places = torch.from_numpy(np.stack(sparse.coords).astype(np.int64))
    tensor = torch.sparse_coo_tensor(
        places, torch.from_numpy(sparse.data), sparse.shape, is_coalesced=True, check_invariants=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.svd_lowrank(tensor, min(rank, *sparse.shape), niter=POWER_ITERATIONS)[1:]

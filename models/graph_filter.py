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
LOW_PASS = 0.3
POWER_ITERATIONS = 4


@dataclass(frozen=True)
class GraphFilter:
    """r_u (R̃ᵀR̃ + α D_I^(−½) V Vᵀ D_I^(½)), r_u being the user's decayed history as of the graph's date."""

    name: str
    graph: Graph
    half_life_days: float
    history: Any  # scipy CSR [U, I]
    gram: Any  # scipy CSR [I, I], R̃ᵀR̃
    damped: Tensor  # float32 [I, K], α D_I^(−½) V
    raised: Tensor  # float32 [I, K], D_I^(½) V

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]."""
        history = self.history[users.cpu().numpy()]
        near = torch.from_numpy((history @ self.gram).toarray()).to(self.damped.device)
        return near.addmm_(torch.from_numpy(history @ self.damped.cpu().numpy()).to(self.damped.device), self.raised.T)

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        return nearest_in_history(self.graph, self.half_life_days, self.raised, users, items)


def fit_graph_filter(
    graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float
) -> Callable[[Graph], Ranker]:
    """GF-CF (Shen et al. 2021, arXiv 2108.07567) on decayed weights.

    R̃ = D_U^(−½) R D_I^(−½) with R = √(Σ strength · 2^(−age/half-life)); V: its first `RANK` right singular vectors.
    """
    half_life_days, device = half_life * horizon_days, graph.interactions.strength.device
    weights = sparse_weights(graph, half_life_days)
    user_degree, item_degree = weights.sum(axis=1).clip(1e-30), weights.sum(axis=0)
    root = np.sqrt(item_degree)
    inverse_root = np.divide(1, root, out=np.zeros_like(root), where=root > 0)
    normal = (diags_array(user_degree**-0.5) @ weights @ diags_array(inverse_root)).tocsr()
    vectors = _right_singular_vectors(normal, settings.seed).to(device)
    damped = LOW_PASS * vectors * torch.from_numpy(inverse_root).to(device)[:, None]
    raised = vectors * torch.from_numpy(root).to(device)[:, None]
    gram = (normal.T @ normal).tocsr()

    def refresh(now: Graph) -> Ranker:
        history = sparse_weights(now, half_life_days)
        return GraphFilter("graph_filter", now, half_life_days, history, gram, damped, raised)

    return refresh


def _right_singular_vectors(matrix: Any, seed: int) -> Tensor:
    """The first `RANK` of a scipy CSR array [U, I], by randomised subspace iteration: float32 [I, K]."""
    sparse = matrix.tocoo()
    places = torch.from_numpy(np.stack(sparse.coords).astype(np.int64))
    tensor = torch.sparse_coo_tensor(
        places, torch.from_numpy(sparse.data), sparse.shape, is_coalesced=True, check_invariants=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.svd_lowrank(tensor, min(RANK, *sparse.shape), niter=POWER_ITERATIONS)[2]

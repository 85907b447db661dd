"""Item-item models: EASE, and the cosine neighbours that stand in for it in large catalogues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from models.graph import Graph
from models.kernels import decay
from models.propagation import offsets, ranges

EASE_RIDGE = 100.0
KNN_NEIGHBOURS = 100


def user_item_matrix(graph: Graph, half_life_days: float) -> sparse.csr_matrix:
    """√(Σ strength · 2^(−age/half-life)) of each pair: float32 [U, I]; the root keeps frequent pairs from ruling."""
    events = graph.interactions
    weight = (events.strength * decay(events.age_days, half_life_days)).cpu().numpy()
    pairs = (events.user_index.cpu().numpy(), events.item_index.cpu().numpy())
    matrix = sparse.csr_matrix((weight, pairs), shape=(graph.user_count, graph.item_count), dtype=np.float32)
    matrix.sum_duplicates()
    matrix.data = np.sqrt(matrix.data)
    return matrix


def ease_weights(graph: Graph, half_life_days: float) -> Tensor:
    """B = I − P / diag(P) with P = (XᵀX + λI)⁻¹ (Steck 2019, arXiv 1905.03375): float32 [I, I], diagonal 0."""
    matrix = user_item_matrix(graph, half_life_days)
    gram = torch.from_numpy((matrix.T @ matrix).toarray())
    gram.diagonal().add_(EASE_RIDGE)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = inverse / -inverse.diagonal()
    return weights.fill_diagonal_(0.0).to(graph.interactions.strength.device)


def knn_weights(graph: Graph, half_life_days: float) -> Tensor:
    """Cosine of item columns, the nearest `KNN_NEIGHBOURS` of each: sparse CSR float32 [I, I], row = item of the history."""
    matrix = user_item_matrix(graph, half_life_days)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(0)).ravel()).clip(1e-12)
    unit = (matrix @ sparse.diags_array(1 / length)).tocsc()
    rows = []
    for start in range(0, graph.item_count, 1024):
        block = (unit[:, start : start + 1024].T @ unit).tocsr()
        block[np.arange(block.shape[0]), np.arange(start, start + block.shape[0])] = 0
        rows.append(_strongest(block, KNN_NEIGHBOURS))
    nearest = sparse.vstack(rows).T.tocsr()
    parts = (torch.from_numpy(part) for part in (nearest.indptr, nearest.indices, nearest.data))
    return torch.sparse_csr_tensor(*parts, size=nearest.shape).to(graph.interactions.strength.device)


def _strongest(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """Each row's `count` largest entries, ties by column."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    kept = order[np.arange(len(order)) - matrix.indptr[row] < count]
    return sparse.csr_matrix((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


@dataclass(frozen=True)
class Neighbours:
    """Σ over the user's items of their decayed weight times item-item weight."""

    name: str
    graph: Graph
    half_life_days: float
    weights: Tensor  # float32 [I, I], dense or sparse CSR

    def _history(self, users: Tensor) -> Tensor:
        start = offsets(self.graph.interactions.user_index, self.graph.user_count)
        row, event = ranges(start[users], start[users + 1])
        events = self.graph.interactions
        weight = events.strength[event] * decay(events.age_days[event], self.half_life_days)
        history = torch.zeros(len(users), self.graph.item_count, device=weight.device)
        history.view(-1).index_add_(0, row * self.graph.item_count + events.item_index[event], weight)
        return history.sqrt_()

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        return self._history(users) @ self.weights

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        dense = self.weights.to_dense() if self.weights.layout != torch.strided else self.weights
        because = []
        for user in users.split(256):
            part = slice(len(because) * 256, len(because) * 256 + len(user))
            because.append((self._history(user) * dense[:, items[part]].T).argmax(1))
        reason_item = torch.cat(because) if because else items
        return ["taste"] * len(items), reason_item, torch.full_like(items, -1)

"""Content only: items as what is known of them, users as what is known of the items that they or their like took up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, hstack
from torch import Tensor

from models.baselines import popularity_scores
from models.graph import Edges, Graph
from models.kernels import decay
from models.neighbours import explain_by_history
from models.ranking import Ranker
from models.settings import ModelSettings

SECOND_HAND = 0.5  # what a fact of a fact counts, beside 1 for a fact
KIN = 1.0  # what facts and friends of a user count, in events of today


@dataclass(frozen=True)
class Content:
    """score(u, i) = cos(p_u, c_i) / temperature + log(1 + popularity_i).

    c_i: shares of item i's facts × log(items / items with the fact), and its features. p_u: decayed sum of the c of the
    user's events + KIN × the mean of users with the same facts, rare ones first, and of friends. Matrices are scipy's.
    """

    name: str
    graph: Graph
    half_life_days: float
    items: Any  # CSR [I, C], rows of length 1 or 0
    histories: Any  # CSR [U, I], decayed sums
    kin: Any  # CSR [U, U], rows sum to 1 or 0
    trend: Tensor  # float32 [I]
    temperature: float

    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]; users without events, facts and friends get the trend."""
        rows = users.numpy()
        taken = self.histories[rows] + KIN * (self.kin[rows] @ _shares(self.histories))
        profile = (self.items.T @ taken.T.toarray()).astype(np.float32)  # [C, B]
        profile /= np.linalg.norm(profile, axis=0).clip(1e-12)
        return torch.from_numpy(np.ascontiguousarray((self.items @ profile).T)) / self.temperature + self.trend

    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """The item of the user's history with the likest content; "trend" where there is none."""

        def toward(wanted: Tensor) -> Tensor:
            return torch.from_numpy((self.items[wanted.numpy()] @ self.items.T).toarray())

        return explain_by_history(self.graph, self.half_life_days, toward, users, items)


def fit_content(
    graph: Graph, horizon_days: int, settings: ModelSettings, half_life: float = inf, temperature: float = 0.12
) -> Callable[[Graph], Ranker]:
    """Nothing is learned, so items and users are as good on their first day as their facts are. half_life: in horizons."""

    def refresh(now: Graph) -> Ranker:
        days = half_life * horizon_days
        events, sizes = now.interactions, (now.user_count, now.item_count)
        weight = events.strength * decay(events.age_days, days)
        histories = _matrix(events.user_index, events.item_index, weight, sizes)
        trend = popularity_scores(now, days).log1p()
        return Content("content", now, days, contents(now), histories, _kin(now), trend, temperature)

    return refresh


def contents(graph: Graph) -> Any:
    """What is known of each item at the graph's date, as rows of length 1 (0 where nothing is): CSR float32 [I, N + F]."""
    sizes = (graph.item_count, graph.entity_count)
    direct = _shares(_edges(graph.item_entities, sizes))
    onward = _edges(graph.entity_entities, (graph.entity_count, graph.entity_count))
    facts = direct + SECOND_HAND * (direct @ _shares(onward + onward.T))
    facts = facts.multiply(_rarity(facts)[None]).tocsr()
    return _unit(hstack([_unit(facts), csr_array(graph.item_features.numpy())]).tocsr())


def _kin(graph: Graph) -> Any:
    """Whom a user resembles: half friends, half those with the same facts, where there are both."""
    facts = _edges(graph.user_entities, (graph.user_count, graph.entity_count))
    who = _shares(facts.multiply(_rarity(facts)[None]).tocsr())
    alike = who @ _shares(facts.T.tocsr())
    friends = _shares(_edges(graph.user_users, (graph.user_count, graph.user_count)))
    return _shares((alike + friends).tocsr())


def _edges(edges: Edges, sizes: tuple[int, int]) -> Any:
    known = edges.known()
    return _matrix(known.source_index, known.target_index, known.weight, sizes)


def _matrix(row: Tensor, column: Tensor, weight: Tensor, sizes: tuple[int, int]) -> Any:
    matrix = csr_array((weight.numpy(), (row.numpy(), column.numpy())), shape=sizes, dtype=np.float32)
    matrix.sum_duplicates()
    return matrix


def _rarity(matrix: Any) -> np.ndarray:
    """log(rows / rows that have the column): float32 [C]; 0 for what all have."""
    having = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return np.log(matrix.shape[0] / having.clip(1)).astype(np.float32)


def _shares(matrix: Any) -> Any:
    """Rows that sum to 1, or 0."""
    return _scaled(matrix, matrix.sum(axis=1))


def _unit(matrix: Any) -> Any:
    """Rows of length 1, or 0."""
    return _scaled(matrix, np.sqrt(matrix.multiply(matrix).sum(axis=1)))


def _scaled(matrix: Any, length: np.ndarray) -> Any:
    by = np.where(length > 0, 1 / np.asarray(length).clip(1e-30), 0).astype(np.float32)
    return matrix.multiply(by[:, None]).tocsr()

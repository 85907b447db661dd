"""Second stage: the first stage's best items ordered again by a small network, learned where the first stage is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

CANDIDATES = 120  # of each user
CANDIDATES_BY_FILTER = 40  # of them
HIDDEN = 32
MOST_SPREADS = 6.0  # from its mean that a feature counts
EPOCHS = 12
MOST_STEPS = 1500  # bounds the time where there are many users
USERS_PER_STEP = 32
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
DROPOUT = 0.1
LEAST_LOG_SHARE = -1e6  # of what cannot be listed, so that 0 hits of it count 0


@dataclass(frozen=True)
class Candidates:
    """The first stage's best items of B users."""

    item: Tensor  # int64 [B, N]
    first: Tensor  # float32 [B, N], its scores; −∞ where there were no more items to offer
    features: Tensor  # float32 [B, N, F]


@dataclass(frozen=True)
class Lesson:
    """Candidates, and which of them followed."""

    candidates: Candidates
    hit: Tensor  # bool [B, N]


class Reranker(nn.Module):
    """first + w · x + v · silu(V silu(U x + a) + b), x being the features in standard deviations from their mean."""

    def __init__(self, feature_count: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(feature_count))
        self.register_buffer("scale", torch.zeros(feature_count))
        self.direct = nn.Linear(feature_count, 1, bias=False)
        self.inner = nn.Linear(feature_count, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1, bias=False)
        for layer in (self.direct, self.last):
            nn.init.zeros_(layer.weight)  # it starts as the first stage

    def standardised(self, features: Tensor) -> Tensor:
        """float32 [..., F]; a feature that was the same everywhere is 0."""
        return ((features - self.mean) * self.scale).clamp_(-MOST_SPREADS, MOST_SPREADS)

    def forward(self, first: Tensor, standardised: Tensor) -> Tensor:
        """Scores of the candidates: float32, in the shape of `first`."""
        hidden = dropout(silu(self.inner(standardised)), DROPOUT, self.training)
        change = self.direct(standardised) + self.last(silu(self.outer(hidden)))
        return first + change.squeeze(-1)

    def values(self) -> dict[str, Any]:
        """Everything `of` needs, as plain values."""
        return {name: value.tolist() for name, value in self.state_dict().items()}

    @staticmethod
    def of(values: dict[str, Any]) -> Reranker:
        """The reranker with these values, ready to score; numbers are the same bits."""
        tensors = {name: torch.as_tensor(value) for name, value in values.items()}
        hidden, feature_count = tensors["inner.weight"].shape
        reranker = Reranker(feature_count, hidden)
        reranker.load_state_dict(tensors)
        return reranker.eval().requires_grad_(False)


def fit_reranker(lessons: Sequence[Lesson], seed: int) -> Reranker:
    """Minimises −Σ_hits log p / √(hits of the user), per user, p being the softmax over the user's candidates.

    By AdamW, rate and β₁ going through one cycle (Smith and Topin 2018, arXiv 1708.07120). On CPU the same input gives the
    same bits.
    """
    hit = torch.cat([lesson.hit for lesson in lessons])
    taught = hit.any(1)
    hit, first = hit[taught], torch.cat([lesson.candidates.first for lesson in lessons])[taught]
    features = torch.cat([lesson.candidates.features for lesson in lessons])[taught]
    with torch.random.fork_rng(devices=[features.device] if features.device.type == "cuda" else []):
        torch.manual_seed(seed)
        reranker = Reranker(features.shape[-1]).to(features.device)
        if len(hit):
            _standardise(reranker, features[first > -torch.inf])
            _learn(reranker, first, reranker.standardised(features), hit)
    return reranker.eval().requires_grad_(False)


def _standardise(reranker: Reranker, features: Tensor) -> None:
    spread = features.std(0, correction=0)
    reranker.mean.copy_(features.mean(0))
    reranker.scale.copy_(torch.where(spread > 1e-6, 1 / spread, 0))


def _learn(reranker: Reranker, first: Tensor, features: Tensor, hit: Tensor) -> None:
    share = hit * hit.sum(1, keepdim=True).float().rsqrt()
    optimizer = torch.optim.AdamW(reranker.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = min(MOST_STEPS, EPOCHS * -(-len(hit) // USERS_PER_STEP))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    reranker.train()
    for users in islice(_batches(len(hit), hit.device), steps):
        log_share = reranker(first[users], features[users]).log_softmax(1)
        loss = -(log_share.clamp(min=LEAST_LOG_SHARE) * share[users]).sum() / len(users)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _batches(count: int, device: torch.device) -> Iterator[Tensor]:
    """Positions below `count`, in a new order each pass, without end."""
    while True:
        yield from torch.randperm(count, device=device).split(USERS_PER_STEP)

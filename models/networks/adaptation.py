"""A vector for who has just come: from a learned start, a few learned steps down the loss of the first events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEPS = 3
LEARNING_RATE = 5e-2


@dataclass(frozen=True)
class Pairs:
    """What B newcomers met: N pairs of a row and the place of an item, or of a user where newcomers are items. int64 [N]."""

    row: Tensor
    other: Tensor


@dataclass(frozen=True)
class Episode:
    """B newcomers as a trained network sees them, their first events, and the later ones that are to be foreseen."""

    starts: Tensor  # float32 [B, D]
    others: Tensor  # float32 [M, D]; they stay as they are
    first: Pairs
    later: Pairs
    rivals: bool = False  # newcomers are ranked for the others: items for users


class Adaptation(nn.Module):
    """v_0 = s ⊙ start + b; v_{t+1} = v_t − n/(n + c) η_t ⊙ ∇_v L(v_t), L = −mean log softmax(v · others) of n events.

    s, b, c and the rates η [T, D] are meta-learned so that v_T foresees the later events, through the gradients of the steps
    (MAML, Finn et al. 2017, arXiv 1703.03400) or past them (`first_order`); a rate for each component is that of Meta-SGD
    (Li et al. 2017, arXiv 1707.09835). L is convex in v, and its gradient is what the softmax expects less what was met.
    """

    def __init__(self, dimension: int, steps: int = STEPS, rate: float = 1.0, *, first_order: bool = False) -> None:
        super().__init__()
        self.first_order = first_order
        self.scale = nn.Parameter(torch.stack([torch.ones(dimension), torch.zeros(dimension)]))
        self.start = nn.Parameter(torch.zeros(dimension))
        self.rates = nn.Parameter(torch.full((steps, dimension), rate))
        self.log_doubt = nn.Parameter(torch.zeros(()))

    def forward(self, starts: Tensor, others: Tensor, first: Pairs) -> Tensor:
        """Adapted vectors: float32 [B, D] → [B, D]; without events v_0."""
        count = torch.bincount(first.row, minlength=len(starts))[:, None]
        met = torch.zeros_like(starts).index_add_(0, first.row, others[first.other]) / count.clamp(min=1)
        trust = count / (count + self.log_doubt.exp())
        values = (self.scale[0] + trust * self.scale[1]) * starts + self.start
        for rate in self.rates:
            gradient = (values @ others.T).softmax(1) @ others - met
            values = values - trust * rate * (gradient.detach() if self.first_order else gradient)
        return values


def later_loss(adapted: Tensor, episode: Episode) -> Tensor:
    """−log softmax of the later events, over the others, or the newcomers where these are rivals.

    The mean over all who have such events, of the mean of each.
    """
    scores = adapted @ episode.others.T
    row, other = episode.later.row, episode.later.other
    chance = scores.log_softmax(0 if episode.rivals else 1)[row, other]
    asked = other if episode.rivals else row
    weight = 1 / torch.bincount(asked)[asked].clamp(min=1)
    return -(chance * weight).sum() / weight.sum().clamp(min=1e-12)


def meta_learn(adaptation: Adaptation, episodes: Iterable[Episode]) -> Adaptation:
    """One step of Adam for each episode; the same episodes give the same bits."""
    optimizer = torch.optim.Adam(adaptation.parameters(), lr=LEARNING_RATE)
    for episode in episodes:
        optimizer.zero_grad()
        adapted = adaptation(episode.starts, episode.others, episode.first)
        later_loss(adapted, episode).backward()
        optimizer.step()
    return adaptation.eval()

"""Lists whose items resemble each other less: maximal marginal relevance."""

from __future__ import annotations

import torch
from torch import Tensor

POOL = 5  # times as many items as a list has are chosen from


def diversify(items: Tensor, scores: Tensor, unit: Tensor, weight: float, k: int) -> tuple[Tensor, Tensor]:
    """The k items of each pool that are picked one by one by (1 − weight) · score − weight · (cosine to the nearest picked).

    Scores count from 0 to 1 within a user's pool; with the items int64 [U, k] come the values they were picked by, float32
    [U, k], which never rise (Carbonell and Goldstein 1998, doi 10.1145/290941.291025). items: int64 [U, P], −1 = none, best
    first; scores: float32 [U, P], −∞ = none; unit: float32 [I, D], of length 1.
    """
    there = items >= 0
    lowest = scores.masked_fill(~there, torch.inf).amin(1, keepdim=True)
    share = (scores - lowest) / (scores[:, :1] - lowest).clamp(min=1e-12)
    vectors = unit[items.clamp(min=0)]
    nearest = torch.zeros_like(scores)
    left = there.clone()
    picked, values = [], []
    for _ in range(min(k, items.shape[1])):
        worth = ((1 - weight) * share - weight * nearest).masked_fill(~left, -torch.inf)
        value, place = worth.max(1)
        picked.append(torch.where(value > -torch.inf, items.gather(1, place[:, None]).squeeze(1), -1))
        values.append(value)
        left.scatter_(1, place[:, None], False)
        cosine = (vectors @ vectors.gather(1, place[:, None, None].expand(-1, 1, vectors.shape[2])).mT).squeeze(2)
        nearest = torch.maximum(nearest, cosine)
    return torch.stack(picked, dim=1), torch.stack(values, dim=1)

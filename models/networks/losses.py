"""What a network is trained to make small. Ranking losses and rating losses, each under one signature and by name.

Ranking losses (`LOSSES`) compare what happened with what was drawn, from scores alone:

    loss(positive [N], negative [N, K], weight [N], log_q [N, 1+K] or None, user [N] or None) → scalar

A negative score of −inf is none at all. Averages over rows are Σ w l / Σ w, over negatives plain. `log_q` is the log
probability with which the positive (first column) and each negative are drawn; `user` is read by the *_by_user and
low-rank losses only. Temperature, cosine or distance are the scorer's: margin losses want cosines, triplet minus distances.

Rating losses (`RATING_LOSSES`) compare a score with a number: loss(score [N], target [N], weight [N]) → scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import logsigmoid, softplus

from models.propagation import ranges

RankingLoss = Callable[..., Tensor]
RatingLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def bpr(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """−mean ln σ(x_i − x_j) (Rendle et al. 2009, arXiv 1205.2618); add `ridge` for its λ‖Θ‖²."""
    return _mean(_over_negatives(softplus(negative - positive[:, None]), negative), weight)


def bpr_by_user(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """The mean over users of −1/(|E(u)| |E_neg(u)|) ΣΣ ln σ(x_i − x_j): every user counts alike, by weight within."""
    return bpr(positive, negative, weight / _per_user(weight, _needed(user)))


def softmax(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """−ln(e^{x_i} / (e^{x_i} + Σ_j e^{x_j})): categorical cross-entropy, InfoNCE (van den Oord et al. 2018, arXiv 1807.03748).

    With log_q each e^{x_j} is divided by K q_j, K being the negatives present: the sum then stands for that over everything
    that could be drawn (Bengio and Senécal 2008; Yi et al. 2019, doi 10.1145/3298689.3346996).
    """
    if log_q is not None:
        negative = negative - (_present(negative).log() + log_q[:, 1:]).where(negative > -inf, 0.0)
    return _mean(torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive, weight)


def nce(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """−[ln σ(x_i) + Σ_j ln σ(−x_j)] (negative sampling: Mikolov et al. 2013, arXiv 1310.4546).

    With log_q all x become x − ln(K q), noise-contrastive estimation (Gutmann and Hyvärinen 2010).
    """
    if log_q is not None:
        count = _present(negative).log()
        positive = positive - (count.squeeze(1) + log_q[:, 0])
        negative = negative - (count + log_q[:, 1:]).where(negative > -inf, 0.0)
    return _mean(softplus(-positive) + softplus(negative).sum(1), weight)


def bce(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of the rows' pairs, 1 for the positive and 0 for its negatives, averaged over the 1 + K."""
    present = (negative > -inf).sum(1)
    return _mean((softplus(-positive) + softplus(negative).sum(1)) / (1 + present), weight)


def hinge(
    positive: Tensor,
    negative: Tensor,
    weight: Tensor,
    log_q: Tensor | None = None,
    user: Tensor | None = None,
    *,
    margin: float,
) -> Tensor:
    """mean max(0, margin − x_i + x_j): max-margin on cosines, the triplet loss on minus distances."""
    return _mean(_over_negatives((margin - positive[:, None] + negative).clamp(min=0), negative), weight)


def low_rank_hinge(
    positive: Tensor,
    negative: Tensor,
    weight: Tensor,
    log_q: Tensor | None = None,
    user: Tensor | None = None,
    *,
    margin: float = 0.2,
    low_margin: float = 0.1,
) -> Tensor:
    """hinge plus mean max(0, low_margin − x_i + x_l) over pairs of a user's positives with weight_i > weight_l.

    So what a user often has outranks what the user seldom has, and both outrank negatives (Jain et al. 2019, Uber Eats).
    Rows count alike: the weight orders them. Needs `user`, and several rows of a user in a batch.
    """
    above = hinge(positive, negative, torch.ones_like(weight), margin=margin)
    high, low = _ordered_pairs(_needed(user), weight)
    return above + (low_margin - positive[high] + positive[low]).clamp(min=0).sum() / max(1, len(high))


def reconstruction(
    positive: Tensor, negative: Tensor, weight: Tensor, log_q: Tensor | None = None, user: Tensor | None = None
) -> Tensor:
    """−mean ln σ(z_u·z_v) of linked − mean ln σ(−z_u·z_v) of unlinked pairs (Kipf and Welling 2016, arXiv 1611.07308)."""
    unlinked = negative[negative > -inf]
    return _mean(-logsigmoid(positive), weight) + softplus(unlinked).sum() / max(1, len(unlinked))


LOSSES: dict[str, RankingLoss] = {
    "bpr": bpr,
    "bpr_by_user": bpr_by_user,
    "softmax": softmax,
    "nce": nce,
    "bce": bce,
    "margin": partial(hinge, margin=0.2),
    "low_rank_margin": low_rank_hinge,
    "triplet": partial(hinge, margin=1.0),
    "reconstruction": reconstruction,
}


def _rating(score: Tensor, target: Tensor, weight: Tensor, *, of: Callable[..., Tensor]) -> Tensor:
    return _mean(of(score, target, reduction="none"), weight)


RATING_LOSSES: dict[str, RatingLoss] = {
    "mse": partial(_rating, of=functional.mse_loss),
    "smooth_l1": partial(_rating, of=functional.smooth_l1_loss),
    "bce": partial(_rating, of=functional.binary_cross_entropy_with_logits),
}


def ridge(*vectors: Tensor) -> Tensor:
    """Σ ‖vectors‖² / rows, what λ multiplies in the loss of a batch; vectors: float [N, D] each, of the rows' nodes."""
    return torch.stack([vector.square().sum() for vector in vectors]).sum() / len(vectors[0])


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-30)


def _present(negative: Tensor) -> Tensor:
    """Negatives that are there, at least 1: float [N, 1]."""
    return (negative > -inf).sum(1, keepdim=True).clamp(min=1).to(negative.dtype)


def _over_negatives(values: Tensor, negative: Tensor) -> Tensor:
    """The mean over the negatives that are there; the values of others must be 0."""
    return (values / _present(negative)).sum(1)


def _per_user(weight: Tensor, user: Tensor) -> Tensor:
    """Of each row, the sum of the weights of its user's rows."""
    distinct, row = torch.unique(user, return_inverse=True)
    return torch.zeros(len(distinct), dtype=weight.dtype, device=weight.device).index_add_(0, row, weight)[row]


def _ordered_pairs(user: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of rows of one user with weights that differ: the higher, and the lower."""
    order = torch.argsort(weight, descending=True, stable=True)
    order = order[torch.argsort(user[order], stable=True)]
    first = torch.searchsorted(user[order], user[order])
    low, high = ranges(first, torch.arange(len(order), device=user.device))
    differ = weight[order[high]] > weight[order[low]]
    return order[high[differ]], order[low[differ]]


def _needed(user: Tensor | None) -> Tensor:
    if user is None:
        raise ValueError("this loss compares rows of one user: pass user, int64 [N]")
    return user

"""A trained network's few shared numbers, learned again where they will be used: on horizons it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.network import CALIBRATED, LISTS, Network
from models.network_ranker import RERANKED_USERS, NetworkRanker
from models.timeline import Snapshot
from models.training import chances, columns_at_once, drawn_columns, softmax_loss

SCORES = 2**22  # users times items of one horizon that are learned from
PRIOR_SPREAD = 0.5  # standard deviation of each number around its trained value
ITERATIONS = 15
START_FILTER = 0.3  # where the root of the filter's weight starts: at 0 it has no gradient
Pairs = tuple[Tensor, Tensor]  # users and items, int64 [N] each


@dataclass(frozen=True)
class Held:
    """One list of one horizon: what its logits are made of, and what followed."""

    head: int
    snapshot: Snapshot
    columns: Tensor  # int64 [C], the items scored: all, or drawn ones
    taste: Tensor  # float32 [B, C], at temperature 1
    filtered: Tensor  # float32 [B, C]
    fixed: Tensor  # float32 [B, C], the repeats; −∞ where an item cannot be listed
    row: Tensor  # int64 [N]
    column: Tensor  # int64 [N]
    log_weight: Tensor | None  # float32 [C], of drawn ones


@torch.no_grad()
def held_out(ranker: NetworkRanker, truth: dict[str, Pairs], lists: tuple[str, ...]) -> list[Held]:
    """The network at the start of a horizon, and by list the pairs that followed, for as many users as `SCORES` allows.

    A large catalogue is learned from with drawn items, as in training.
    """
    network, items, graph = ranker.network, ranker.items, ranker.timeline.graph
    everyone = torch.unique(truth[lists[0]][0])
    dice = torch.Generator().manual_seed(network.settings.seed)
    count = max(1, SCORES // columns_at_once(graph))
    users = everyone[torch.randperm(len(everyone), generator=dice)[:count].to(everyone.device).sort().values]
    snapshot = ranker.timeline.at(0, users)
    columns, log_weight = torch.arange(graph.item_count, device=users.device), None
    if columns_at_once(graph) < graph.item_count:
        user, item = truth[lists[0]]
        dice = torch.Generator(users.device).manual_seed(network.settings.seed)
        columns, log_weight = drawn_columns(chances(snapshot), item[torch.isin(user, users)], dice)
    directions = normalize(network.user_sums(snapshot, items.embeddings), dim=-1) - ranker.average[:, None]
    filtered = torch.cat([ranker.filtered(part)[:, columns] for part in users.split(RERANKED_USERS)])
    (kept, seen), parts = snapshot.seen(columns), []
    for name in lists:
        head = LISTS.index(name)
        fixed = torch.zeros_like(filtered).masked_fill_(~snapshot.live[columns], -torch.inf)
        if name == "discover":
            fixed.view(-1)[seen] = -torch.inf
        elif network.settings.repeat:
            fixed.view(-1).index_add_(0, seen, network.repeats(snapshot)[kept])
        user, item = truth[name]
        mine = torch.isin(user, users)
        rows, row = torch.unique(torch.searchsorted(users, user[mine]), return_inverse=True)
        column = torch.searchsorted(columns, item[mine])
        taste = directions[head, rows] @ items.unit[columns].T
        parts.append(Held(head, snapshot, columns, taste, filtered[rows], fixed[rows], row, column, log_weight))
    return parts


def calibrate(network: Network, held: Sequence[Held]) -> Network:
    """A copy with the temperatures, weights of trends and weight of the item filter that make held-out events likeliest.

    Maximises Σ_users Σ_targets log p / √(targets of the user) − Σ (θ − trained θ)² / 2σ² by L-BFGS, p being the softmax over
    the items that can be listed. What was learned by heart counts less on later dates; and the filter, which only knows who
    bought what with what, may know what the embeddings missed.
    """
    chosen = deepcopy(network).requires_grad_(False)
    values = {name: getattr(chosen, name) for name in CALIBRATED}
    trained = {name: getattr(network, name).detach() for name in CALIBRATED}
    chosen.filter_root.fill_(START_FILTER)
    for value in values.values():
        value.requires_grad_()
    optimizer = torch.optim.LBFGS(list(values.values()), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        distance = torch.stack([(value - trained[name]).square().sum() for name, value in values.items()]).sum()
        total = sum((_loss(chosen, part) for part in held), distance / (2 * PRIOR_SPREAD**2))
        total.backward()
        return total

    optimizer.step(closure)
    return chosen.requires_grad_(False)


def _loss(network: Network, part: Held) -> Tensor:
    head = part.head
    logits = network.log_temperature[head].exp() * part.taste + network.filter_weight()[head] * part.filtered
    logits = logits + sum(trend[head, part.columns] for trend in network.trends(part.snapshot)) + part.fixed
    return softmax_loss(logits, part.row, part.column, part.log_weight)

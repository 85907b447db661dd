"""The model: score = taste + repeat + trend, each part to be shown on its own; see DESIGN.md, "The model"."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize, softplus

from models.propagation import propagate
from models.settings import ModelSettings
from models.timeline import Snapshot

LISTS = ("for_you", "discover")  # the two heads: the same parts, each with its own calibration
REPEAT_HALF_LIVES_DAYS = (7.0, 60.0)  # where the learned half-lives start


class Network(nn.Module):
    """Item and entity embeddings, and for each list the mix of kernels, the temperature and the weights of the trend.

    Users have no parameters: whoever has one event can be scored, and a graph newer than the training needs no retraining.
    """

    def __init__(
        self,
        item_count: int,
        entity_count: int,
        event_types: tuple[str, ...],
        horizon_days: int,
        kernel_count: int,
        trend_count: int,
        settings: ModelSettings,
    ) -> None:
        super().__init__()
        self.event_types, self.horizon_days, self.settings = event_types, horizon_days, settings
        rows, heads, dimension = kernel_count * len(event_types), len(LISTS), settings.dimension
        self.item = nn.Parameter(torch.randn(item_count, dimension) * dimension**-0.5)
        self.entity = nn.Parameter(torch.randn(entity_count, dimension) * 0.1 * dimension**-0.5)
        self.mix = nn.Parameter(torch.full((heads, rows, dimension), 1.0 / rows))
        self.log_temperature = nn.Parameter(torch.full((heads,), log(8.0)))
        self.trend = nn.Parameter(torch.full((heads, trend_count), 1.0 / trend_count))
        half_lives = torch.tensor(REPEAT_HALF_LIVES_DAYS)
        self.log_half_life = nn.Parameter(half_lives.log().repeat(len(event_types), 1))
        self.repeat = nn.Parameter(torch.full((len(event_types), len(half_lives)), 2.0))

    def item_embeddings(self, snapshot: Snapshot) -> Tensor:
        """Own embedding plus the weighted mean of the item's entities: float32 [I, D]."""
        if not self.settings.facts or not len(self.entity):
            return self.item
        return self.item + propagate(snapshot.timeline.facts, snapshot.fact_weight, self.entity)

    def user_vectors(self, snapshot: Snapshot, items: Tensor) -> Tensor:
        """Σ_c α_c ⊙ Σ_j ŵ_c(u, j) e_j, one per list, of length 1: float32 [2, B, D]."""
        sums = torch.stack([propagate(snapshot.history, kernel, items) for kernel in snapshot.kernels], dim=1)
        sums = sums.reshape(len(snapshot.users), -1, items.shape[1])
        return normalize(torch.einsum("brd,hrd->hbd", sums, self.mix), dim=-1)

    def trends(self, snapshot: Snapshot) -> Tensor:
        """Σ_w p_w log(1 + pop_w), one per list, −∞ for items not live: float32 [2, I]."""
        return torch.where(snapshot.live, self.trend @ snapshot.trend.T, -torch.inf)

    def repeats(self, snapshot: Snapshot) -> Tensor:
        """log(1 + Σ_events Σ_m r_m strength 2^(−age/h_m)) of each pair of the history: float32 [P].

        It is the log intensity of a self-exciting process with exponential memory, in units of the item's trend.
        """
        half_life = self.log_half_life.exp()[snapshot.event_type_index]
        weight = softplus(self.repeat)[snapshot.event_type_index] * torch.exp2(-snapshot.age_days[:, None] / half_life)
        excitation = torch.zeros(len(snapshot.pair_row), device=weight.device)
        return torch.log1p(excitation.index_add(0, snapshot.event_pair, weight.sum(1) * snapshot.strength))

    def forward(self, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """Logits of both lists: float32 [B, I] each, −∞ for items not live and, in `discover`, for items of the history."""
        seen = snapshot.pair_row * len(snapshot.live) + snapshot.pair_item
        for_you, discover = self.unmasked(snapshot)
        discover.view(-1).index_fill_(0, seen, -torch.inf)
        return for_you, discover

    def unmasked(self, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        trend = self.trends(snapshot)
        if self.settings.taste:
            items = self.item_embeddings(snapshot)
            users = self.user_vectors(snapshot, items)
            targets = normalize(items, dim=-1)
            targets = dropout(targets, self.settings.dropout, self.training)
            scores = [torch.addmm(trend[h], users[h] * self.log_temperature[h].exp(), targets.T) for h in range(2)]
        else:
            scores = [trend[h].expand(len(snapshot.users), -1).clone() for h in range(2)]
        pair = snapshot.pair_row * len(snapshot.live) + snapshot.pair_item
        scores[0].view(-1).index_add_(0, pair, self.repeats(snapshot))
        return scores[0], scores[1]


def learned_half_lives_days(network: Network) -> dict[str, float]:
    """Days after which an event's effect on its own pair has fallen to half, by event type, as learned."""
    days = torch.arange(1, 3651, dtype=torch.float64)
    result = {}
    for position, name in enumerate(network.event_types):
        half_life = network.log_half_life[position].detach().double().exp()
        weight = softplus(network.repeat[position].detach().double())
        effect = (weight * torch.exp2(-days[:, None] / half_life)).sum(1)
        result[name] = float(days[int((effect > weight.sum() / 2).sum()).__sub__(1)])
    return result

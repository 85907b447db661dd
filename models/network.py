"""The model: score = taste + repeat + trend, each part to be shown on its own; see DESIGN.md, "The model"."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from models.kernels import decay
from models.propagation import propagate
from models.reranker import Reranker
from models.settings import ModelSettings
from models.timeline import CONTEXT, EARLIER_YEARS, RECENT, Snapshot

YEAR_DAYS = 365
LISTS = ("for_you", "discover")  # the two heads: the same parts, each with its own calibration
START_TEMPERATURE = 8.0
START_SEASON = (1.0, 0.0)  # of the kernels: a rate that doubles lifts the score by log 2; the narrow one must be earned
START_RETURN = 5.0  # one event at this time of an earlier year, likewise
START_REPEAT = 20.0  # one fresh event lifts its item twentyfold, before training says how much
CALIBRATED = ("log_temperature", "trend", "season", "filter_root")  # learned again on the holdouts
SHARE, RERANKER = "taste", "reranker"
Finish = (
    float | dict[str, Any]
)  # share of the trained taste; the calibrated numbers; or a share and a reranker's values


def told(finishes: dict[str, Finish]) -> dict[str, float | str]:
    """The same in short: a share, or that the list's head is calibrated or its best items ordered again."""

    def word(finish: Finish) -> float | str:
        if isinstance(finish, dict):
            return "reranked" if RERANKER in finish else "calibrated"
        return finish

    return {name: word(finish) for name, finish in finishes.items()}


def served_lists(repeats: bool) -> tuple[str, ...]:
    """The lists to train and judge: where repeats are off, both lists are `discover`."""
    return LISTS if repeats else LISTS[1:]


@dataclass(frozen=True)
class ItemSide:
    """What the items bring to every user's scores as of one date."""

    embeddings: Tensor  # float32 [I, D]
    unit: Tensor  # float32 [I, D], the same with length 1
    trend: Tensor  # float32 [2, I], one row per list, −∞ for items not live


class Network(nn.Module):
    """Embeddings of items and entities, and for each list the mix of kernels, the temperature and the trend's weights.

    Users have no parameters: one event is enough to be scored, and a newer graph needs no retraining.
    """

    def __init__(
        self,
        item_count: int,
        entity_count: int,
        event_types: tuple[str, ...],
        horizon_days: int,
        *,
        source_count: int,
        trend_count: int,
        settings: ModelSettings,
    ) -> None:
        super().__init__()
        self.event_types, self.horizon_days, self.settings = event_types, horizon_days, settings
        heads, dimension = len(LISTS), settings.dimension
        self.item = nn.Parameter(torch.randn(item_count, dimension) * dimension**-0.5)
        self.entity = nn.Parameter(torch.randn(entity_count, dimension) * 0.1 * dimension**-0.5)
        self.mix = nn.Parameter(torch.full((heads, source_count, dimension), 1.0 / source_count))
        self.near = nn.Parameter(torch.zeros(dimension))
        self.log_temperature = nn.Parameter(torch.full((heads,), log(START_TEMPERATURE)))
        self.trend = nn.Parameter(torch.full((heads, trend_count), 1.0 / trend_count))
        self.season = nn.Parameter(torch.tensor(START_SEASON).repeat(heads, 1))
        self.filter_root = nn.Parameter(torch.zeros(heads), requires_grad=False)  # learned by `models.calibration` only
        half_lives = torch.tensor(settings.repeat_half_lives_days)
        self.log_half_life = nn.Parameter(half_lives.log().repeat(len(event_types), 1))
        self.log_repeat = nn.Parameter(torch.full((len(event_types), len(half_lives)), log(START_REPEAT)))
        self.log_return = nn.Parameter(torch.full((len(event_types),), log(START_RETURN)))
        self.rerankers = nn.ModuleDict()  # of the lists that have one, learned by `models.reranker` only

    def calibration(self) -> list[nn.Parameter]:
        """The few numbers that all users and items share."""
        repeat = [self.log_half_life, self.log_repeat, self.log_return]
        return [self.mix, self.near, self.log_temperature, self.trend, self.season, *repeat]

    def calibration_values(self, list_name: str) -> dict[str, Any]:
        """The numbers of a list that `models.calibration` learns again, as plain values."""
        return {name: getattr(self, name)[LISTS.index(list_name)].tolist() for name in CALIBRATED}

    def finished(self, finishes: dict[str, Finish]) -> Network:
        """The same network with each list's head as the holdouts want it."""
        network = deepcopy(self)
        with torch.no_grad():
            for list_name, finish in finishes.items():
                head = LISTS.index(list_name)
                if not isinstance(finish, dict):
                    network.log_temperature[head] += log(finish)
                elif RERANKER in finish:
                    network.log_temperature[head] += log(finish[SHARE])
                    network.rerankers[list_name] = Reranker.of(finish[RERANKER]).to(network.item.device)
                else:
                    for name, value in finish.items():
                        getattr(network, name)[head] = torch.tensor(value)
        return network

    def filter_weight(self) -> Tensor:
        """Of the item filter's scores, one per list, not below 0: float32 [2]."""
        return self.filter_root.square()

    def with_taste(self, share: float) -> Network:
        """The same network, whose taste counts so much of what it was trained to."""
        return self.finished(dict.fromkeys(LISTS, share))

    def entity_embeddings(self, snapshot: Snapshot) -> Tensor:
        """Own embedding plus the mean of the linked entities: float32 [N, D]."""
        hop = snapshot.entity_entities
        return self.entity if hop is None else self.entity + hop(self.entity)

    def item_embeddings(self, snapshot: Snapshot) -> Tensor:
        """Own embedding plus the mean of the item's entities, plus a share of the item's neighbours': float32 [I, D]."""
        items = self.item
        if snapshot.item_entities is not None:
            items = items + snapshot.item_entities(self.entity_embeddings(snapshot))
        return items if snapshot.neighbours is None else items + self.near * snapshot.neighbours(items)

    def user_sums(self, snapshot: Snapshot, items: Tensor) -> Tensor:
        """Σ_c α_c ⊙ Σ_j ŵ_c(u, j) e_j, one per list; the taste goes by its direction: float32 [2, B, D].

        The sums c are one per kernel and event type, then the user's entities, then the friends' histories.
        """
        history, users, types = snapshot.history, len(snapshot.users), len(self.event_types)
        sums = [
            propagate(history.items, kernel, items).view(users, types, items.shape[1]) for kernel in history.kernels
        ]
        sources: list[Tensor | None] = [*torch.cat(sums, dim=1).unbind(1), None, None]
        if snapshot.user_entities is not None:
            sources[-2] = snapshot.user_entities(self.entity_embeddings(snapshot))
        if snapshot.friends is not None and snapshot.friend_history is not None:
            sources[-1] = snapshot.friends(snapshot.friend_history(items))
        nothing = items.new_zeros(users, items.shape[1])
        mixed = [
            sum((alpha * source for alpha, source in zip(mix, sources, strict=True) if source is not None), nothing)
            for mix in self.mix
        ]
        return torch.stack(mixed)

    def trends(self, snapshot: Snapshot) -> tuple[Tensor, ...]:
        """Σ_w p_w log(1 + pop_w) of the recent windows, that of the earlier years', and the context's part.

        float32 [2, I] each.
        """
        parts = (RECENT, EARLIER_YEARS, CONTEXT)
        weight = self.trend.masked_scatter(snapshot.trend_part == EARLIER_YEARS, self.season)
        return tuple((weight * (snapshot.trend_part == part)) @ snapshot.trend.T for part in parts)

    def repeats(self, snapshot: Snapshot) -> Tensor:
        """log(1 + Σ_events Σ_m r_m strength 2^(−age/h_m)) of each pair of the history: float32 [P].

        With it the score is the log intensity of a self-exciting process, the excitation in units of the item's trend.
        """
        history = snapshot.history
        half_life = self.log_half_life.exp()[history.event_type_index] if self.settings.decay else torch.inf
        memory = decay(history.age_days[:, None], half_life)
        excitation = (self.log_repeat.exp()[history.event_type_index] * memory).sum(1)
        if history.returning is not None:
            excitation = excitation + self.log_return.exp()[history.event_type_index] * history.returning
        pairs = excitation.new_zeros(len(history.pair_row))
        return torch.log1p(pairs.index_add(0, history.pair, excitation * history.strength))

    def item_side(self, snapshot: Snapshot) -> ItemSide:
        """Embeddings and trends, which all users of a date share."""
        recent, earlier, context = self.trends(snapshot)
        trend = torch.where(snapshot.live, recent + earlier + context, -torch.inf)
        if not self.settings.taste:
            return ItemSide(self.item, self.item, trend)
        items = self.item_embeddings(snapshot)
        return ItemSide(items, normalize(items, dim=-1), trend)

    def forward(
        self,
        snapshot: Snapshot,
        lists: tuple[str, ...] = LISTS,
        items: ItemSide | None = None,
        average: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> list[Tensor]:
        """Logits of these lists: float32 [B, I] each, −∞ for items not live; items of the history are not masked.

        items: the date's, if at hand; average: float32 [2, D], mean direction of the users, else that of the snapshot's;
        columns: int64 [C], ascending, to score only these items: float32 [B, C] each.
        """
        items = items or self.item_side(snapshot)
        unit, trend = (items.unit, items.trend) if columns is None else (items.unit[columns], items.trend[:, columns])
        heads = [LISTS.index(name) for name in lists]
        if self.settings.taste:
            users = normalize(self.user_sums(snapshot, items.embeddings), dim=-1)
            users = (users - (users.mean(1) if average is None else average)[:, None]) * self.log_temperature.exp()[
                :, None, None
            ]
            users = dropout(users, self.settings.dropout, self.training)
            logits = [torch.addmm(trend[head], users[head], unit.T) for head in heads]
        else:
            logits = [trend[head].repeat(len(snapshot.users), 1) for head in heads]
        if "for_you" in lists and self.settings.repeat:
            kept, cell = snapshot.seen(columns)
            logits[lists.index("for_you")].view(-1).index_add_(0, cell, self.repeats(snapshot)[kept])
        return logits


def learned_half_lives_days(network: Network) -> dict[str, float]:
    """Days after which an event's effect on its own pair has fallen half way to what is left of it after a year.

    By event type, as learned. What is left then is the user's lasting liking of the item rather than the event's effect.
    """
    days = torch.arange(0, YEAR_DAYS, 0.05, dtype=torch.float64)
    half_lives = network.log_half_life.detach().double().cpu().exp()
    weights = network.log_repeat.detach().double().cpu().exp()
    effects = [(weights[t] * decay(days[:, None], half_lives[t])).sum(1) for t in range(len(network.event_types))]
    above = [int((effect > (effect[0] + effect[-1]) / 2).sum()) for effect in effects]
    return {name: float(days[count]) for name, count in zip(network.event_types, above, strict=True)}

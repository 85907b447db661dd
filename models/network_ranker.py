"""A trained network as of one graph's date: scores for lists, and the reason of each entry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.graph import Graph
from models.network import LISTS, Network
from models.propagation import offsets, ranges
from models.timeline import Snapshot, Timeline

USERS_PER_CHUNK = 512
NONE = -1


class NetworkRanker:
    """Refreshes trends, kernels and histories for `graph`; the network is not trained again."""

    def __init__(self, network: Network, graph: Graph, name: str = "almanac") -> None:
        self.name, self.network = name, network
        self.timeline = Timeline(graph, network.horizon_days, network.settings)

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]; items not live have −∞. users: int64 [B], ascending."""
        head = LISTS.index(list_name)
        return torch.cat([self.network(self.timeline.at(0, part))[head] for part in users.split(USERS_PER_CHUNK)])

    @torch.no_grad()
    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """The part that lifts each pair most above the mean of the live items, and the item or entity behind it.

        users: int64 [N], ascending; items: int64 [N]. An own event is a "repeat", its item the reason; "taste" names the
        item of the history that adds most, or is a "fact" where the item's entities say more than the item itself.
        """
        head = LISTS.index(list_name)
        reasons, reason_item, reason_entity = [], torch.full_like(items, NONE), torch.full_like(items, NONE)
        for part in torch.unique(users).split(USERS_PER_CHUNK):
            inside = (users >= part[0]) & (users <= part[-1])
            pairs = _Pairs(self.network, self.timeline.at(0, part), head, users[inside], items[inside])
            names, reason_item[inside], reason_entity[inside] = pairs.reasons()
            reasons += names
        return reasons, reason_item, reason_entity


class _Pairs:
    """The parts of the scores of N pairs of one snapshot."""

    def __init__(self, network: Network, snapshot: Snapshot, head: int, users: Tensor, items: Tensor) -> None:
        self.network, self.snapshot, self.head, self.item = network, snapshot, head, items
        self.row = torch.searchsorted(snapshot.users, users)
        self.embeddings = network.item_embeddings(snapshot)
        self.user = network.user_vectors(snapshot, self.embeddings)[head] * network.log_temperature[head].exp()

    def reasons(self) -> tuple[list[str], Tensor, Tensor]:
        parts = self._parts()
        names = list(parts)
        largest = torch.stack(list(parts.values())).argmax(0)
        is_taste, is_repeat = largest == names.index("taste"), largest == names.index("repeat")
        entity = self._entity() if self.snapshot.item_entities is not None else torch.full_like(self.item, NONE)
        is_fact = is_taste & (entity != NONE) & self._facts_say_more()
        reason_item = torch.where(is_repeat, self.item, torch.where(is_taste & ~is_fact, self._history_item(), NONE))
        named = zip(largest.tolist(), is_fact.tolist(), strict=True)
        return (
            ["fact" if fact else names[part] for part, fact in named],
            reason_item,
            torch.where(is_fact, entity, NONE),
        )

    def _parts(self) -> dict[str, Tensor]:
        """Each part of the score minus its mean over the live items: float32 [N] each."""
        network, snapshot = self.network, self.snapshot
        recent, earlier = (part[self.head] - part[self.head, snapshot.live].mean() for part in network.trends(snapshot))
        repeat = torch.zeros(len(self.row), device=self.row.device)
        if LISTS[self.head] == "for_you" and len(snapshot.seen):
            pair = self.row * len(snapshot.live) + self.item
            position = torch.searchsorted(snapshot.seen, pair).clamp(max=len(snapshot.seen) - 1)
            repeat = torch.where(snapshot.seen[position] == pair, network.repeats(snapshot)[position], 0.0)
        taste = torch.full_like(repeat, -torch.inf)
        if network.settings.taste:
            unit = normalize(self.embeddings, dim=-1)
            taste = (self.user[self.row] * (unit[self.item] - unit[snapshot.live].mean(0))).sum(1)
        return {"trend": recent[self.item], "season": earlier[self.item], "repeat": repeat, "taste": taste}

    def _facts_say_more(self) -> Tensor:
        """bool [N]: the item's entities agree more with the user than its own embedding does."""
        own, whole = self.network.item[self.item], self.embeddings[self.item]
        return (self.user[self.row] * (whole - 2 * own)).sum(1) > 0

    def _entity(self) -> Tensor:
        """The entity of each pair's item that agrees most with the user, −1 without entities."""
        hop = self.snapshot.item_entities
        assert hop is not None
        pair, edge = ranges(hop.adjacency.row_offsets[self.item], hop.adjacency.row_offsets[self.item + 1])
        known = hop.weight[edge] > 0
        pair, edge = pair[known], edge[known]
        entity = hop.adjacency.column[edge].long()
        entities = self.network.entity_embeddings(self.snapshot)
        agreement = (self.user[self.row[pair]] * entities[entity]).sum(1) * hop.weight[edge]
        start = torch.full((len(self.item),), -torch.inf, device=self.item.device)
        best = agreement == start.scatter_reduce(0, pair, agreement, "amax")[pair]
        return torch.full_like(self.item, NONE).scatter_reduce(0, pair[best], entity[best], "amax")

    def _history_item(self) -> Tensor:
        """The other item of the user's history that adds most to the taste of each pair, −1 without one."""
        history, types = self.snapshot.history, len(self.network.event_types)
        mix = self.network.mix[self.head, : types * len(history.kernels)].view(len(history.kernels), types, -1)
        event_type = torch.repeat_interleave(history.items.row_offsets.diff()) % types
        added = torch.zeros(len(event_type), self.embeddings.shape[1], device=self.row.device)
        for alpha, kernel in zip(mix, history.kernels, strict=True):
            added += alpha[event_type] * kernel[:, None]
        added *= self.embeddings[history.items.column]
        event_bounds = history.items.row_offsets[::types].tolist()
        pair_bounds = offsets(self.row, len(self.snapshot.users)).tolist()
        chosen = torch.full_like(self.item, NONE)
        for user in range(len(self.snapshot.users)):
            events, pairs = slice(*event_bounds[user : user + 2]), slice(*pair_bounds[user : user + 2])
            bought = history.items.column[events]
            share = self.embeddings[self.item[pairs]] @ added[events].T
            share.masked_fill_(bought == self.item[pairs, None], -torch.inf)
            if len(bought):
                best, position = share.max(1)
                chosen[pairs] = torch.where(best > 0, bought[position], NONE)
        return chosen

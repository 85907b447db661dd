"""A trained network as of one graph's date: scores for lists, and the reason of each entry."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.graph import Graph
from models.hops import Hop
from models.neighbours import EASE_MOST_ITEMS, Neighbours, ease_weights, knn_weights
from models.network import LISTS, ItemSide, Network
from models.pairs import Columns, Traits, history_columns, shared_columns, traits
from models.propagation import offsets, ranges, weighted_sums
from models.ranking import best, in_threads
from models.reranker import CANDIDATES, CANDIDATES_BY_FILTER, Candidates, Reranker
from models.settings import MODEL
from models.timeline import Snapshot, Timeline

FILTER_HORIZONS = 13.0  # half-life of the histories that the item filter reads
RERANKER_HORIZONS = (4.0, FILTER_HORIZONS, float("inf"))  # the same for the second stage
RERANKED_USERS = 128  # at a time: the vectors of all their candidates are looked up
SPREAD_USERS = 256
USERS_PER_CHUNK = 1024
EXPLAINED_USERS = 128  # at a time: every fact of every item of their lists is looked at
AVERAGE_USERS = 1024
NONE = -1


ItemFilter = Tensor | Hop


def learn_filter(graph: Graph, network: Network) -> ItemFilter:
    """Item–item weights in closed form, by who bought what with what, under which scores have a standard deviation of 1."""
    learn = ease_weights if graph.item_count <= EASE_MOST_ITEMS else knn_weights
    half_life_days = _filter_half_life_days(network)
    weights = learn(graph, half_life_days)
    users = torch.unique(graph.interactions.user_index)
    sample = users[:: max(1, len(users) // SPREAD_USERS)]
    scores = Neighbours("filter", graph, half_life_days, weights).scores(sample, LISTS[0])
    spread = scores.std(correction=0).clamp(min=1e-12) if len(sample) else torch.ones(())
    return Hop(weights.adjacency, weights.weight / spread) if isinstance(weights, Hop) else weights / spread


def _filter_half_life_days(network: Network) -> float:
    return FILTER_HORIZONS * network.horizon_days if network.settings.decay else float("inf")


class NetworkRanker:
    """Refreshes trends, kernels and histories for `graph`; the network is not trained again."""

    def __init__(
        self,
        network: Network,
        graph: Graph,
        name: str = MODEL,
        timeline: Timeline | None = None,
        item_filter: ItemFilter | None = None,
    ) -> None:
        self.name, self.network = name, network
        self.timeline = timeline or Timeline(graph, network.horizon_days, network.settings)
        self._filter = item_filter

    @cached_property
    def filter(self) -> Neighbours:
        """The item filter on the graph's histories, learned from the graph when none was given."""
        graph, network = self.timeline.graph, self.network
        weights = learn_filter(graph, network) if self._filter is None else self._filter
        return Neighbours("filter", graph, _filter_half_life_days(network), weights)

    @cached_property
    def centre(self) -> Tensor:
        """Mean unit embedding of the live items: float32 [D]."""
        return self.items.unit[self.timeline.graph.live_items].mean(0)

    @cached_property
    def filter_mean(self) -> Tensor:
        """What an item of a history adds to the filter's score of a live item, on average: float32 [I]."""
        return self.filter.mean_weight(self.timeline.graph.live_items)

    def filtered(self, users: Tensor) -> Tensor:
        """The item filter's scores: float32 [B, I]. users: int64 [B]."""
        return self.filter.scores(users, LISTS[0])

    @cached_property
    def _filters(self) -> list[Neighbours]:
        """The item filter on histories of each half-life that the second stage reads, its own in the middle.

        Empty where there is to be no graph, or another.
        """
        settings, horizon_days = self.network.settings, self.network.horizon_days
        if not settings.taste or settings.random_graph:
            return []
        half_lives = [horizons * horizon_days for horizons in RERANKER_HORIZONS] if settings.decay else [float("inf")]
        return [replace(self.filter, half_life_days=half_life) for half_life in half_lives]

    def filtered_by(self, users: Tensor) -> list[Tensor]:
        """The scores of each of the second stage's filters: float32 [B, I]. users: int64 [B]."""
        return [one.scores(users, LISTS[0]) for one in self._filters]

    @cached_property
    @torch.no_grad()
    def items(self) -> ItemSide:
        """Embeddings and trends of the date, read when first asked for."""
        return self.network.item_side(self.timeline.at(0, self.timeline.user_offsets[:0]))

    def with_taste(self, share: float) -> NetworkRanker:
        """The ranker of `Network.with_taste`; items and average user do not depend on the share, so they are read once."""
        _ = self.items, self.average
        ranker = copy(self)
        ranker.network = self.network.with_taste(share)
        return ranker

    @cached_property
    @torch.no_grad()
    def average(self) -> Tensor:
        """Mean direction of users active of late: float32 [2, D]."""
        snapshot = self.timeline.at(0, self.timeline.active_users(AVERAGE_USERS))
        return normalize(self.network.user_sums(snapshot, self.items.embeddings), dim=-1).mean(1)

    @cached_property
    def traits(self) -> Traits:
        """What users and items are like as of the date, for the second stage."""
        return traits(self.timeline.graph, self.network.horizon_days, self.network.settings.decay)

    @torch.no_grad()
    def scores(self, users: Tensor, list_name: str) -> Tensor:
        """float32 [B, I]; items not live have −∞. users: int64 [B], ascending."""
        at_a_time = RERANKED_USERS if list_name in self.network.rerankers else USERS_PER_CHUNK
        parts = [self._scores(self.timeline.at(0, part), list_name) for part in users.split(at_a_time)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _scores(self, snapshot: Snapshot, list_name: str) -> Tensor:
        """The first stage's; where there is a second, its candidates come first, with the scores it gives them."""
        scores = self._first(snapshot, list_name)
        if list_name in self.network.rerankers:
            reranker, found = self.reranker(list_name), self._candidates(snapshot, scores, list_name)
            again = reranker(found.first, reranker.standardised(found.features))
            offered = found.first > -torch.inf
            lowest = again.masked_fill(~offered, torch.inf).amin(1, keepdim=True)
            scores.scatter_(1, found.item, -torch.inf)
            scores.sub_((scores.amax(1, keepdim=True) - lowest).clamp(min=0)).clamp_(max=lowest)
            scores.scatter_reduce_(1, found.item, again.masked_fill(~offered, -torch.inf), "amax")
        return scores

    def _first(self, snapshot: Snapshot, list_name: str) -> Tensor:
        scores = self.network(snapshot, (list_name,), self.items, self.average)[0]
        if weight := float(self.network.filter_weight()[LISTS.index(list_name)]):
            scores.add_(self.filtered(snapshot.users), alpha=weight)
        return scores

    def reranker(self, list_name: str) -> Reranker:
        """The list's second stage."""
        reranker = self.network.rerankers[list_name]
        assert isinstance(reranker, Reranker)
        return reranker

    @torch.no_grad()
    def candidates(self, users: Tensor, list_name: str) -> Candidates:
        """What the second stage is given. users: int64 [B], ascending."""
        parts = []
        for part in users.split(RERANKED_USERS):
            snapshot = self.timeline.at(0, part)
            parts.append(self._candidates(snapshot, self._first(snapshot, list_name), list_name))
        return Candidates(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))

    def _candidates(self, snapshot: Snapshot, first: Tensor, list_name: str) -> Candidates:
        """The best of the first stage, and of what these leave the best of the item filter."""
        eligible = first.clone()
        if list_name == "discover":
            eligible.view(-1)[snapshot.seen()[1]] = -torch.inf
        filtered = self.filtered_by(snapshot.users)
        by_filter = CANDIDATES_BY_FILTER if filtered else 0
        first, item = best(eligible, min(CANDIDATES - by_filter, first.shape[1]))
        if left := min(by_filter, eligible.shape[1] - item.shape[1]):
            closed = (eligible == -torch.inf).scatter_(1, item, True)
            value, more = best(filtered[len(filtered) // 2].masked_fill(closed, -torch.inf), left)
            offered = eligible.gather(1, more).masked_fill_(value == -torch.inf, -torch.inf)
            first, item = torch.cat([first, offered], dim=1), torch.cat([item, more], dim=1)
        row = torch.arange(len(item), device=item.device).repeat_interleave(item.shape[1])
        columns = self.columns(snapshot, filtered, row, item.flatten(), LISTS.index(list_name))
        features = torch.stack([column for _, column in columns], dim=1)
        return Candidates(item, first, features.view(*item.shape, len(columns)))

    def columns(self, snapshot: Snapshot, filtered: list[Tensor], row: Tensor, item: Tensor, head: int) -> Columns:
        """What the second stage reads about each pair; filtered: what `filtered_by` gives for the snapshot's users.

        row, item: int64 [N], rows of these users.
        """
        network, horizon_days = self.network, self.network.horizon_days
        timed, columns = network.settings.decay, []
        if network.settings.taste:
            direction = normalize(network.user_sums(snapshot, self.items.embeddings)[head], dim=-1) - self.average[head]
            taste = (direction[row] * self.items.unit[item]).sum(1) * network.log_temperature[head].exp()
            columns.append(("taste", taste))
        columns += [("taste", scores[row, item]) for scores in filtered]
        if network.settings.repeat and LISTS[head] == "for_you":
            repeats = network.repeats(snapshot)
            columns += history_columns(snapshot, row, item, repeats, self.traits, horizon_days, timed)
        return columns + shared_columns(snapshot, row, item, self.traits)

    @torch.no_grad()
    def explain(self, users: Tensor, items: Tensor, list_name: str) -> tuple[list[str], Tensor, Tensor]:
        """The part that lifts each pair most above the mean of the live items, and the item or entity behind it.

        users: int64 [N], ascending; items: int64 [N]. An own event is a "repeat", its item the reason; "taste" names the
        item of the history that adds most, or is a "fact" where the item's entities say more than the item itself.
        """
        if not len(users):
            return [], torch.full_like(items, NONE), torch.full_like(items, NONE)
        head = LISTS.index(list_name)
        _ = self.items, self.average, self.centre  # once, before the threads
        if self.network.filter_weight()[head]:
            _ = self.filter_mean
        if list_name in self.network.rerankers:
            _ = self.traits, self._filters

        @torch.no_grad()
        def explained(part: Tensor) -> tuple[list[str], Tensor, Tensor]:
            inside = slice(
                *torch.searchsorted(users, part[[0, -1]] + torch.tensor([0, 1], device=part.device)).tolist()
            )
            return _Pairs(self, self.timeline.at(0, part), head, users[inside], items[inside]).reasons()

        reasons, reason_item, reason_entity = zip(
            *in_threads(explained, torch.unique(users).split(EXPLAINED_USERS)), strict=True
        )
        return [reason for part in reasons for reason in part], torch.cat(reason_item), torch.cat(reason_entity)


class _Pairs:
    """The parts of the scores of N pairs of one snapshot."""

    def __init__(self, ranker: NetworkRanker, snapshot: Snapshot, head: int, users: Tensor, items: Tensor) -> None:
        self.ranker, self.network, self.side = ranker, ranker.network, ranker.items
        self.snapshot, self.head, self.item = snapshot, head, items
        self.row = torch.searchsorted(snapshot.users, users)
        sums = self.network.user_sums(snapshot, self.side.embeddings)[head]
        temperature = self.network.log_temperature[head].exp()
        self.scale = temperature / sums.norm(dim=1).clamp(min=1e-12)
        self.user = sums * self.scale[:, None] - ranker.average[head] * temperature
        weight = self.network.filter_weight()[head]
        self.filter = ranker.filter if weight else None
        if self.filter:
            start, item, told = self.filter.bags(snapshot.users)
            told = told * weight
            self.filtered, self.filtered_bounds = (item, told), start.tolist()
            self.usual = weighted_sums(item, start, told, ranker.filter_mean[:, None]).squeeze(1)

    def reasons(self) -> tuple[list[str], Tensor, Tensor]:
        none = torch.full_like(self.item, NONE)
        history_item, entity, parts = none, none, self._parts()
        if self.network.settings.taste:
            history_item, own, filtered = self._from_history()
            parts["repeat"] += own
            parts["taste"] = self._taste() + filtered - own
        if self.snapshot.item_entities is not None:
            entity = self._entity()
        for name, lift in self._lifts().items():
            parts[name] = parts[name] + lift
        names = list(parts)
        largest = torch.stack(list(parts.values())).argmax(0)
        is_taste = (
            largest == names.index("taste") if "taste" in names else torch.zeros_like(self.item, dtype=torch.bool)
        )
        is_fact = is_taste & (entity != NONE)
        reason_item = torch.where(largest == names.index("repeat"), self.item, none)
        reason_item = torch.where(is_taste & ~is_fact, history_item, reason_item)
        named = zip(largest.tolist(), is_fact.tolist(), strict=True)
        reasons = ["fact" if fact else names[part] for part, fact in named]
        return reasons, reason_item, torch.where(is_fact, entity, none)

    def _parts(self) -> dict[str, Tensor]:
        """Trend, season and context minus their mean over the live items, and repeat: float32 [N] each.

        −∞ are the repeat of a first time and a context that lifts nothing.
        """
        network, snapshot = self.network, self.snapshot
        trends = [part[self.head] - part[self.head, snapshot.live].mean() for part in network.trends(snapshot)]
        recent, earlier, context = (part[self.item] for part in trends)
        repeat = torch.full((len(self.row),), -torch.inf, device=self.row.device)
        _, seen = snapshot.seen()
        if LISTS[self.head] == "for_you" and len(seen) and network.settings.repeat:
            pair = self.row * len(snapshot.live) + self.item
            position = torch.searchsorted(seen, pair).clamp(max=len(seen) - 1)
            repeat = torch.where(seen[position] == pair, network.repeats(snapshot)[position], repeat)
        context = torch.where(context > 0, context, -torch.inf)
        return {"trend": recent, "season": earlier, "repeat": repeat, "context": context}

    def _lifts(self) -> dict[str, Tensor]:
        """What each part adds in the second stage, beside a pair that is average in it: float32 [N] each."""
        if LISTS[self.head] not in self.network.rerankers:
            return {}
        reranker = self.ranker.reranker(LISTS[self.head])
        filtered = self.ranker.filtered_by(self.snapshot.users)
        told = self.ranker.columns(self.snapshot, filtered, self.row, self.item, self.head)
        part_of, columns = zip(*told, strict=True)
        features = reranker.standardised(torch.stack(columns, dim=1))
        none = torch.zeros(len(self.item), device=self.item.device)

        def without(part: str) -> Tensor:
            return features.masked_fill(torch.tensor([one == part for one in part_of], device=features.device), 0)

        named = [part for part in dict.fromkeys(part_of) if part]
        return {part: reranker(none, features) - reranker(none, without(part)) for part in named}

    def _taste(self) -> Tensor:
        """Taste minus the user's mean over the live items: float32 [N]."""
        return (self.user[self.row] * (self.side.unit[self.item] - self.ranker.centre)).sum(1)

    def _entity(self) -> Tensor:
        """The entity that agrees most with the user, −1 where the item itself says more than its entities do: int64 [N]."""
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
        chosen = torch.full_like(self.item, NONE).scatter_reduce(0, pair[best], entity[best], "amax")
        more = (self.user[self.row] * (hop(entities) - self.network.item)[self.item]).sum(1) > 0
        return torch.where(more, chosen, NONE)

    def _from_history(self) -> tuple[Tensor, Tensor, Tensor]:
        """The other item of the user's history that adds most to each pair's taste (int64 [N], −1 without one).

        And what the events with the pair's own item add to it (float32 [N]), which is a repeat rather than a taste; and the
        item filter's score of the pair minus the user's mean over the live items (float32 [N]).
        """
        history, types = self.snapshot.history, len(self.network.event_types)
        count = len(history.kernels)
        event_type = torch.repeat_interleave(history.items.row_offsets.diff()) % types
        place = torch.arange(count, device=self.row.device) * types + event_type[:, None]  # in the mix, of each kernel
        bags = torch.arange(len(event_type) + 1, device=self.row.device) * count
        mix = self.network.mix[self.head, : types * count]
        added = weighted_sums(place.flatten(), bags, history.kernels.T.flatten(), mix)
        added *= self.side.embeddings[history.items.column]
        wanted = self.side.unit[self.item] * self.scale[self.row, None]
        event_bounds = history.items.row_offsets[::types].tolist()
        pair_bounds = offsets(self.row, len(self.snapshot.users)).tolist()
        chosen, own = torch.full_like(self.item, NONE), torch.zeros(len(self.item), device=self.row.device)
        filtered = torch.zeros_like(own)
        for user in range(len(self.snapshot.users)):
            events, pairs = slice(*event_bounds[user : user + 2]), slice(*pair_bounds[user : user + 2])
            bought = history.items.column[events].long()
            if len(bought):
                share = wanted[pairs] @ added[events].T
                is_own = bought == self.item[pairs, None]
                own[pairs] = (share * is_own).sum(1)
                if self.filter:
                    bag = slice(*self.filtered_bounds[user : user + 2])
                    known, weight = (column[bag] for column in self.filtered)
                    by_filter = weight * self.filter.between(self.item[pairs], known)
                    filtered[pairs] = by_filter.sum(1) - self.usual[user]
                    share = share + by_filter[:, torch.searchsorted(known, bought)]
                best, position = share.masked_fill(is_own, -torch.inf).max(1)
                chosen[pairs] = torch.where(best > 0, bought[position], NONE)
        return chosen, own, filtered

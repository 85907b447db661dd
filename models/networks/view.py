"""A graph as of its date as networks read it: typed, weighted edges over one numbering of users, items and entities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, pi

import torch
from torch import Tensor

from models.graph import Edges, Graph
from models.hops import Hop, row_shares
from models.kernels import YEAR_CONCENTRATION, decay, middle_of, phase_match, year_phase
from models.neighbours import knn_weights
from models.propagation import Adjacency, offsets

EARLIER_YEARS_DAYS = 183  # events older than this may tell of the same time of an earlier year
KINDS = ("user", "item", "entity")
EdgeType = tuple[str, str, str]  # kind of the source, relation, kind of the target
NONE = slice(0)
FEATURES = 5  # of an edge: log weight, log count, log age, cosine and sine of its time of the year


@dataclass(frozen=True)
class Clock:
    """How much an event counts: strength · (2^(−age/half-life) + season · phase match, where it is of an earlier year).

    An infinite half-life with season 0 is the undecayed graph.
    """

    half_life_days: float = inf
    season: float = 0.0
    horizon_days: int = 7  # the time of year that counts is the middle of the coming horizon

    def weigh(self, graph: Graph) -> Tensor:
        """float32 [E], above 0, of the graph's interactions."""
        events = graph.interactions
        weight = decay(events.age_days, self.half_life_days)
        if self.season:
            coming = year_phase(middle_of(graph.as_of, self.horizon_days))
            match = phase_match(events.year_phase, coming, YEAR_CONCENTRATION)
            weight = weight + self.season * match * (events.age_days > EARLIER_YEARS_DAYS)
        return (weight * events.strength).clamp(min=1e-12)


@dataclass(frozen=True)
class Relation:
    """Edges of one type, sorted by target. Sources and targets are places in the numbering of all nodes."""

    edge_index: Tensor  # int64 [2, E], sources above targets, as in PyG
    weight: Tensor  # float32 [E], above 0
    features: Tensor  # float32 [E, FEATURES]; what tells of time is 0 where the clock stands still

    def where(self, keep: Tensor | slice) -> Relation:
        """The edges of a mask (bool [E]), an order (int64 [E]) or a slice."""
        return Relation(self.edge_index[:, keep], self.weight[keep], self.features[keep])

    def sorted(self) -> Relation:
        """The same edges in the order of their targets."""
        return self.where(torch.argsort(self.edge_index[1], stable=True))

    def turned(self) -> Relation:
        """From targets to sources."""
        return replace(self, edge_index=self.edge_index.flip(0)).sorted()


@dataclass(frozen=True)
class Ends:
    """Who takes part in each relation, one relation after the other: in a graph of facts most relations touch few nodes."""

    source: Tensor  # int64 [P], nodes that are heard in a relation
    target: Tensor  # int64 [Q], nodes that hear in a relation
    adjacency: tuple[Adjacency, ...]  # of each relation: its targets ← its sources
    joined: Tensor  # int64 [E], the place in `View.joined` of each edge of each relation

    def heard(self, values: Tensor) -> tuple[Tensor, ...]:
        """The sources' values of each relation: [V, …] → [P_r, …] each."""
        return values[self.source].split([len(one.column_offsets) - 1 for one in self.adjacency])

    def hearers(self, values: Tensor) -> tuple[Tensor, ...]:
        """The targets' values of each relation: [V, …] → [Q_r, …] each."""
        return values[self.target].split([len(one.row_offsets) - 1 for one in self.adjacency])


@dataclass(frozen=True)
class View:
    """Every relation and its reverse (`rev_…`), users first, then items, then entities."""

    graph: Graph
    clock: Clock
    relations: dict[EdgeType, Relation]

    @classmethod
    def of(cls, graph: Graph, clock: Clock, similar: int = 0, like: View | None = None) -> View:
        """What is known at the graph's date; similar: nearest items by common users to add as edges, 0 = none.

        like: a view whose relations are taken, in its order, whether there are edges or not.
        """
        start = starts(graph)
        forward = _interactions(graph, clock)
        for edges, source, target in (
            (graph.item_entities, "item", "entity"),
            (graph.user_entities, "user", "entity"),
            (graph.entity_entities, "entity", "entity"),
            (graph.user_users, "user", "user"),
        ):
            for place, of_relation in _by_relation(edges.known(), start[source], start[target]):
                forward[source, graph.relations[place], target] = of_relation
        relations = {}
        for (source, name, target), relation in forward.items():
            relations[source, name, target] = relation.sorted()
            relations[target, f"rev_{name}", source] = relation.turned()
        if similar:
            relations["item", "similar", "item"] = _similar(graph, clock, similar)
        if like:
            relations = {name: relations.get(name, edges.where(NONE)) for name, edges in like.relations.items()}
        return cls(graph, clock, relations)

    @property
    def node_count(self) -> int:
        """V."""
        return self.graph.user_count + self.graph.item_count + self.graph.entity_count

    @cached_property
    def kinds(self) -> dict[str, slice]:
        """The places of each kind of node."""
        start, graph = starts(self.graph), self.graph
        counts = zip(KINDS, (graph.user_count, graph.item_count, graph.entity_count), strict=True)
        return {kind: slice(start[kind], start[kind] + count) for kind, count in counts}

    @cached_property
    def joined(self) -> tuple[Relation, Tensor]:
        """The edges of all relations, sorted by target, and the place of each one's type in `relations`: int64 [E]."""
        nothing = torch.zeros(2, 0, dtype=torch.int64, device=self.graph.item_age_days.device)
        every = [*self.relations.values(), _undated(nothing, nothing[0].float())]  # the last one has no edge
        kind = torch.repeat_interleave(torch.tensor([len(one.weight) for one in every], dtype=torch.int64))
        edge_index = torch.cat([one.edge_index for one in every], 1)
        weight, features = torch.cat([one.weight for one in every]), torch.cat([one.features for one in every])
        order = torch.argsort(edge_index[1], stable=True)
        return Relation(edge_index, weight, features).where(order), kind.to(order.device)[order]

    @cached_property
    def ends(self) -> Ends:
        """The ends of every relation."""
        source, target, adjacency = [self.joined[1][:0]], [self.joined[1][:0]], []
        for edges in self.relations.values():
            (heard, column), (hearer, row) = (torch.unique(side, return_inverse=True) for side in edges.edge_index)
            adjacency.append(Adjacency.build(row, column, len(hearer), len(heard)))
            source.append(heard)
            target.append(hearer)
        joined = torch.argsort(self.joined[1], stable=True)
        return Ends(torch.cat(source), torch.cat(target), tuple(adjacency), joined)

    def only(self, *kinds: str) -> View:
        """Without the relations that touch other kinds of nodes."""
        return self.without(lambda name: not {name[0], name[2]} <= set(kinds))

    def without(self, unwanted: Callable[[EdgeType], bool]) -> View:
        """Without some relations."""
        return replace(self, relations={name: edges for name, edges in self.relations.items() if not unwanted(name)})

    def heaviest(self, count: int) -> View:
        """Each node hears its `count` heaviest edges of each relation: the most recent ones, where edges decay."""
        return self.picked(count, lambda edges: edges.weight)

    def picked(self, count: int, score: Callable[[Relation], Tensor]) -> View:
        """Each node hears the `count` edges of each relation that score highest: float [E], of the relation's edges."""
        relations = {name: _highest(edges, score(edges), count) for name, edges in self.relations.items()}
        return replace(self, relations=relations)

    @cached_property
    def _hops(self) -> dict[tuple[EdgeType | None, bool], Hop]:
        return {}

    def hop(self, name: EdgeType | None = None, *, mean: bool = False) -> Hop:
        """Weighted sums over the edges of a relation, None = all, of all nodes: w / √(d_source d_target), or w / d_target.

        d is the sum of a node's weights on its side of these edges.
        """
        if (name, mean) not in self._hops:
            self._hops[name, mean] = self._hop(name, mean)
        return self._hops[name, mean]

    def _hop(self, name: EdgeType | None, mean: bool) -> Hop:
        edges = self.joined[0] if name is None else self.relations[name]
        source, target = edges.edge_index
        adjacency = Adjacency.build(target, source, self.node_count, self.node_count)
        if mean:
            return Hop(adjacency, row_shares(edges.weight, target, self.node_count))
        degrees = (degree(place, edges.weight, self.node_count) for place in (source, target))
        from_source, to_target = degrees
        share = edges.weight / (from_source[source] * to_target[target]).sqrt().clamp(min=1e-30)
        return Hop(adjacency, share)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Rows by kind of node, as PyG's layers for several kinds take them."""
        return {kind: values[place] for kind, place in self.kinds.items()}

    def local(self, name: EdgeType) -> Tensor:
        """The relation's edges numbered within their kinds: int64 [2, E]."""
        start = torch.tensor([[self.kinds[name[0]].start], [self.kinds[name[2]].start]])
        return self.relations[name].edge_index - start.to(self.relations[name].edge_index.device)


def starts(graph: Graph) -> dict[str, int]:
    """The first place of each kind."""
    return {"user": 0, "item": graph.user_count, "entity": graph.user_count + graph.item_count}


def degree(place: Tensor, weight: Tensor, count: int) -> Tensor:
    """The sum of the weights at each place: float32 [count]."""
    return torch.zeros(count, device=weight.device).index_add_(0, place, weight)


def _interactions(graph: Graph, clock: Clock) -> dict[EdgeType, Relation]:
    """One edge for each pair and event type: the weights of its events add up, its age is that of the newest."""
    events, weight, relations = graph.interactions, clock.weigh(graph), {}
    for place, name in enumerate(graph.event_types):
        mine = events.event_type_index == place
        user, item, age = events.user_index[mine], events.item_index[mine], events.age_days[mine].float()
        pairs, pair, count = torch.unique_consecutive(
            user * graph.item_count + item, return_inverse=True, return_counts=True
        )
        total = torch.zeros(len(pairs), device=age.device).index_add_(0, pair, weight[mine])
        newest = (torch.cumsum(count, 0) - count).long()  # the first of each pair: events are sorted by age
        age, phase = age[newest], events.year_phase[mine][newest]
        moving, turning = float(clock.half_life_days < inf), float(clock.season > 0)
        features = torch.stack(
            [
                total.log(),
                count.float().log(),
                torch.log1p(age) * moving,
                torch.cos(2 * pi * phase) * turning,
                torch.sin(2 * pi * phase) * turning,
            ],
            dim=1,
        )
        edge = torch.stack([pairs // graph.item_count, pairs % graph.item_count + graph.user_count])
        if len(pairs):
            relations["user", name, "item"] = Relation(edge, total, features)
    return relations


def _by_relation(edges: Edges, source_start: int, target_start: int) -> Iterator[tuple[int, Relation]]:
    """The relations that have edges, by their position in `Graph.relations`; all of them in one sort."""
    relation, order = torch.sort(edges.relation_index, stable=True)
    place, count = torch.unique_consecutive(relation, return_counts=True)
    edge = torch.stack([edges.source_index + source_start, edges.target_index + target_start])[:, order]
    parts = edge.split(count.tolist(), dim=1), edges.weight[order].split(count.tolist())
    for position, edge_index, weight in zip(place.tolist(), *parts, strict=True):
        yield position, _undated(edge_index, weight)


def _undated(edge: Tensor, weight: Tensor) -> Relation:
    features = torch.zeros(len(weight), FEATURES, device=weight.device)
    features[:, 0] = weight.clamp(min=1e-12).log()
    return Relation(edge, weight, features)


def _similar(graph: Graph, clock: Clock, count: int) -> Relation:
    hop = knn_weights(graph, clock.half_life_days, count)
    target = torch.repeat_interleave(hop.adjacency.row_offsets.diff())
    edge = torch.stack([hop.adjacency.column.long(), target]) + graph.user_count
    kept = hop.weight > 0
    return _undated(edge[:, kept], hop.weight[kept])


def _highest(edges: Relation, score: Tensor, count: int) -> Relation:
    """edges: sorted by target."""
    target = edges.edge_index[1]
    by_score = torch.argsort(score, descending=True, stable=True)
    order = by_score[torch.argsort(target[by_score], stable=True)]
    start = offsets(target[order], int(target[-1]) + 1 if len(target) else 0)
    rank = torch.arange(len(order), device=order.device) - start[target[order]]
    return edges.where(order[rank < count])

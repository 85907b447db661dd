"""The same graph with its nodes renumbered: what a network says of them must not depend on their numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.graph import Edges, Graph, Interactions


@dataclass(frozen=True)
class Permutation:
    """The new place of each old one: `values_new[place] = values_old`. int64 each."""

    user: Tensor  # [U]
    item: Tensor  # [I]
    entity: Tensor  # [N]

    @property
    def node(self) -> Tensor:
        """Of all nodes in the numbering of a `View`: users, items, entities: int64 [V]."""
        items = self.item + len(self.user)
        return torch.cat([self.user, items, self.entity + len(self.user) + len(self.item)])


def moved(values: Tensor, place: Tensor) -> Tensor:
    """The rows of `values` at their new places."""
    return torch.empty_like(values).index_copy_(0, place, values)


def permuted(graph: Graph, dice: torch.Generator) -> tuple[Graph, Permutation]:
    """Users, items and entities in a random new order, events sorted anew, edges of facts in a random order of their own."""
    counts = (graph.user_count, graph.item_count, graph.entity_count)
    to = Permutation(*(torch.randperm(count, generator=dice) for count in counts))
    fresh = replace(
        graph,
        interactions=_events(graph, to),
        item_age_days=moved(graph.item_age_days, to.item),
        item_retired_age_days=moved(graph.item_retired_age_days, to.item),
        item_features=moved(graph.item_features, to.item),
        user_features=moved(graph.user_features, to.user),
        user_segment=moved(graph.user_segment, to.user),
        item_entities=_edges(graph.item_entities, to.item, to.entity, dice),
        user_entities=_edges(graph.user_entities, to.user, to.entity, dice),
        entity_entities=_edges(graph.entity_entities, to.entity, to.entity, dice),
        user_users=_edges(graph.user_users, to.user, to.user, dice),
    )
    return fresh, to


def _events(graph: Graph, to: Permutation) -> Interactions:
    """Sorted by (user, item, age) as a `Graph` has them."""
    events = graph.interactions
    user, item = to.user[events.user_index], to.item[events.item_index]
    order = torch.argsort((user * graph.item_count + item) * (graph.oldest_days + 1) + events.age_days, stable=True)
    return replace(events, user_index=user, item_index=item).where(order)


def _edges(edges: Edges, source: Tensor, target: Tensor, dice: torch.Generator) -> Edges:
    order = torch.randperm(len(edges.weight), generator=dice)
    to = replace(edges, source_index=source[edges.source_index], target_index=target[edges.target_index])
    return Edges(**{name: column[order] for name, column in vars(to).items()})

"""The `graph.*` tables as the tensors of `models.graph.Graph`, through Arrow."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from duckdb import DuckDBPyConnection
from torch import Tensor

from models.graph import NEVER, Context, Edges, Graph, Interactions


def load_graph(warehouse: DuckDBPyConnection, as_of: date, event_types: tuple[str, ...]) -> Graph:
    """The graph that `build_graph` made for `as_of`; event types are numbered in the given order."""
    users = _read(warehouse, "from graph.user_nodes order by user_index")
    items = _read(warehouse, "from graph.item_nodes order by item_index")
    events = _read(warehouse, "from graph.interaction_edges order by user_index, item_index, age_days, event_type")
    known = _read(
        warehouse,
        "select source_kind, source_index, relation, entity_index as target_index, weight, age_days"
        " from graph.knowledge_edges order by all",
    )
    social = _read(
        warehouse,
        "select 'social' as source_kind, user_index as source_index, relation, other_user_index as target_index, weight,"
        " age_days from graph.social_edges order by all",
    )
    context = _read(warehouse, "from graph.context order by all")
    relations = tuple(sorted(set(known["relation"].to_pylist()) | set(social["relation"].to_pylist())))
    return Graph(
        as_of=as_of,
        user_count=len(users),
        item_count=len(items),
        entity_count=warehouse.execute("select count(*) from graph.entity_nodes").fetchall()[0][0],
        event_types=event_types,
        relations=relations,
        interactions=Interactions(
            user_index=_tensor(events["user_index"]),
            item_index=_tensor(events["item_index"]),
            event_type_index=_positions(events["event_type"], event_types),
            age_days=_tensor(events["age_days"], torch.int32),
            strength=_tensor(events["strength"], torch.float32),
            year_phase=_tensor(events["year_phase"], torch.float32),
            week_phase=_tensor(events["week_phase"], torch.float32),
            hours_to_midnight=_tensor(events["hours_to_midnight"], torch.int32),
        ),
        item_age_days=_tensor(items["age_days"], torch.int32),
        item_retired_age_days=_tensor(items["retired_age_days"].fill_null(-NEVER), torch.int32),
        item_features=_features(warehouse, "item", len(items)),
        user_features=_features(warehouse, "user", len(users)),
        user_segment=_positions(users["segment"], tuple(sorted(set(users["segment"].to_pylist())))),
        item_entities=_edges(known, "item", relations),
        user_entities=_edges(known, "user", relations),
        entity_entities=_edges(known, "entity", relations),
        user_users=_edges(social, "social", relations),
        context=_context(context),
    )


def node_ids(warehouse: DuckDBPyConnection) -> tuple[list[str], list[str], list[str]]:
    """Ids of users, items and entities in the order of their indices."""
    queries = ("select user_id from graph.user_nodes order by user_index",)
    queries += ("select item_id from graph.item_nodes order by item_index",)
    queries += ("select entity_id from graph.entity_nodes order by entity_index",)
    users, items, entities = (_read(warehouse, query).column(0).to_pylist() for query in queries)
    return users, items, entities


def _read(warehouse: DuckDBPyConnection, query: str) -> pa.Table:
    return warehouse.sql(query).to_arrow_table()


def _tensor(column: pa.ChunkedArray, kind: torch.dtype = torch.int64) -> Tensor:
    return torch.from_numpy(np.array(column.to_numpy())).to(kind)


def _positions(column: pa.ChunkedArray, names: tuple[str, ...]) -> Tensor:
    """Each value's position in `names`."""
    encoded = column.combine_chunks().dictionary_encode()
    position = {name: index for index, name in enumerate(names)}
    lookup = torch.tensor([position[name] for name in encoded.dictionary.to_pylist()], dtype=torch.int64)
    return lookup[_tensor(pa.chunked_array([encoded.indices]))]


def _edges(table: pa.Table, kind: str, relations: tuple[str, ...]) -> Edges:
    rows = table.filter(pc.field("source_kind") == kind)
    return Edges(
        source_index=_tensor(rows["source_index"]),
        target_index=_tensor(rows["target_index"]),
        relation_index=_positions(rows["relation"], relations) if len(rows) else torch.zeros(0, dtype=torch.int64),
        weight=_tensor(rows["weight"], torch.float32),
        age_days=_tensor(rows["age_days"].fill_null(NEVER), torch.int32),
    )


def _context(table: pa.Table) -> Context:
    series = tuple(sorted(set(table["series"].to_pylist())))
    return Context(
        series=series,
        series_index=_positions(table["series"], series),
        day_age_days=_tensor(table["day_age_days"], torch.int32),
        known_age_days=_tensor(table["known_age_days"].fill_null(NEVER), torch.int32),
        value=_tensor(table["value"], torch.float64),
    )


def _features(warehouse: DuckDBPyConnection, kind: str, count: int) -> Tensor:
    """float32 [count, F]: one standardised column per numeric attribute, 0 where a node has none."""
    rows = _read(
        warehouse, f"select attribute, node_index, number from graph.features where node_kind = '{kind}' order by all"
    )
    names = tuple(sorted(set(rows["attribute"].to_pylist())))
    features = torch.zeros(count, len(names))
    if len(rows):
        column, node, number = (
            _positions(rows["attribute"], names),
            _tensor(rows["node_index"]),
            _tensor(rows["number"], torch.float64),
        )
        for index in range(len(names)):
            values = number[column == index]
            spread = values.std(correction=0).clamp(min=1e-9)
            features[node[column == index], index] = ((values - values.mean()) / spread).float()
    return features

"""From `raw.*` to `staging.*` to `graph.*`: each table is one SELECT file."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from tasks.errors import ContractError
from tasks.sources import Source
from tasks.warehouse import build, open_warehouse, scalar, set_variables

STAGING = ("interactions", "users", "items", "facts", "links", "attributes", "context")
GRAPH = ("user_nodes", "item_nodes", "entity_nodes", "interaction_edges", "knowledge_edges", "social_edges", "features")
GRAPH += ("context",)


def build_staging(home: Path, source: Source, as_of: date) -> dict[str, int]:
    """Rebuilds `staging.*` from what was known before `as_of`; returns rows by table."""
    with open_warehouse(home) as warehouse:
        set_variables(warehouse, as_of=as_of, natural_key=list(source.natural_key))
        return {table: build(warehouse, f"staging.{table}") for table in STAGING}


def undated(home: Path) -> dict[str, int]:
    """Attributes, facts, links and context without a date, which count as always known."""
    dates = dict.fromkeys(("attributes", "facts", "links"), "since") | {"context": "known_since"}
    with open_warehouse(home) as warehouse:
        counts = {
            table: scalar(warehouse, f"select count(*) from staging.{table} where {since} is null")
            for table, since in dates.items()
        }
    return {table: count for table, count in counts.items() if count}


def build_graph(home: Path, source: Source, as_of: date) -> dict[str, int]:
    """Rebuilds `graph.*` from `staging.*`; returns rows by table."""
    with open_warehouse(home) as warehouse:
        columns = [row[0] for row in warehouse.execute("describe staging.users").fetchall()]
        if source.segment_column and source.segment_column not in columns:
            raise ContractError(
                f"segment_column {source.segment_column!r} is no column of users.sql: {', '.join(columns)}"
            )
        set_variables(warehouse, as_of=as_of, segment_column=source.segment_column)
        strengths = "set variable event_strength = map_from_entries(list_zip($types, $strengths))"
        types, values = list(source.event_strength), list(source.event_strength.values())
        warehouse.execute(strengths, {"types": types, "strengths": values})
        return {table: build(warehouse, f"graph.{table}") for table in GRAPH}

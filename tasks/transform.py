"""From `raw.*` to `staging.*` to `graph.*`: each table is one SELECT file."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection

from tasks.errors import ContractError, UsageError
from tasks.sources import Source
from tasks.warehouse import build, exists, open_warehouse, scalar, set_variables

STAGING = ("interactions", "users", "items", "facts", "links", "attributes", "context")
GRAPH = ("user_nodes", "item_nodes", "entity_nodes", "interaction_edges", "knowledge_edges", "social_edges", "features")
GRAPH += ("context",)


def known_at(source: Source, as_of: date) -> datetime:
    """The midnight that begins `as_of` in the source's time zone, in UTC: a run by arrival sees what arrived before."""
    midnight = datetime.combine(as_of, time(), ZoneInfo(source.time_zone))
    return midnight.astimezone(UTC).replace(tzinfo=None)


def build_staging(home: Path, source: Source, as_of: date, known_at: datetime | None = None) -> dict[str, int]:
    """Rebuilds `staging.*` from what was known before `as_of`; returns rows by table.

    known_at: only what had arrived before that time, in UTC; `UsageError` where nothing had. None: all that is known now.
    """
    with open_warehouse(home) as warehouse:
        if known_at:
            _refuse_silence(warehouse, home, as_of, known_at)
        set_variables(warehouse, as_of=as_of, natural_key=list(source.natural_key))
        limit = "coalesce(cast($known_at as timestamp), timestamp 'infinity')"
        warehouse.execute(f"set variable known_at = {limit}", {"known_at": known_at})
        return {table: build(warehouse, f"staging.{table}") for table in STAGING}


def _refuse_silence(warehouse: DuckDBPyConnection, home: Path, as_of: date, known_at: datetime) -> None:
    """A date before the first arrival has nothing to be made from."""
    arrivals = "select min(loaded_at) from raw.interactions where excluded_because is null"
    earliest = scalar(warehouse, arrivals) if exists(warehouse, "raw.interactions") else None
    if earliest and earliest >= known_at:
        raise UsageError(
            f"nothing had arrived in {home} when {as_of} began ({known_at:%Y-%m-%d %H:%M} UTC): the first rows arrived at "
            f"{earliest:%Y-%m-%d %H:%M} UTC. Begin with a later date, take --known-at event, or let the source say when its "
            "rows or files arrived (docs/add-a-source.md) and load them into a new home"
        )


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
        set_variables(warehouse, as_of=as_of, segment_column=source.segment_column, time_zone=source.time_zone)
        strengths = "set variable event_strength = map_from_entries(list_zip($types, $strengths))"
        types, values = list(source.event_strength), list(source.event_strength.values())
        warehouse.execute(strengths, {"types": types, "strengths": values})
        return {table: build(warehouse, f"graph.{table}") for table in GRAPH}

"""What a source's SELECT may refer to: files, through functions that read them, and what it defines itself.

It runs beside the warehouse's tables, so what it says is looked through before it runs: DuckDB lists what a SELECT refers to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.errors import ContractError
from tasks.warehouse import read_select, scalar

READERS = {"read_csv", "read_csv_auto", "sniff_csv", "read_parquet", "parquet_scan", "read_text", "read_blob", "glob"}
READERS |= {f"read_{kind}{what}" for kind in ("json", "ndjson") for what in ("", "_auto", "_objects", "_objects_auto")}
GENERATORS = {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree"}
QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}  # the others write


def read_adapter(path: Path, connection: DuckDBPyConnection) -> str:
    """The text of a source's SELECT; `ContractError` where it reads a table, calls what is no reader, or writes.

    Needs the words of `sql/text_files.sql` on the connection: they are readers too.
    """
    query = read_select(path, connection)
    words = "select function_name from duckdb_functions() where function_type = 'table_macro' and not internal"
    readers = READERS | GENERATORS | {name for (name,) in connection.execute(words).fetchall()}
    tree = json.loads(scalar(connection, "select json_serialize_sql($text)", text=query))
    if tree["error"]:
        raise ContractError(
            f"{path} cannot be looked through: {tree['error_message']}; write it as one SELECT without pivot"
        )
    if foreign := sorted(set(_foreign(tree["statements"], frozenset(), readers))):
        raise ContractError(
            f"{path} refers to {', '.join(foreign)}; a source's SELECT reads files, such as "
            "read_csv(getvariable('input') || '/*.csv'), and nothing else"
        )
    return query


def _foreign(node: Any, defined: frozenset[str], readers: set[str]) -> Iterator[str]:
    """What a part of a parsed SELECT refers to beside files; defined: names that `with` gives it, in lower case."""
    if isinstance(node, list):
        for part in node:
            yield from _foreign(part, defined, readers)
    if not isinstance(node, dict):
        return
    for entry in (node.get("cte_map") or {}).get("map", ()):
        name = entry["key"].lower()
        is_recursive = entry["value"]["query_node"]["type"] == "RECURSIVE_CTE_NODE"
        yield from _foreign(entry["value"], defined | ({name} if is_recursive else set()), readers)
        defined |= {name}
    yield from _named(node, defined, readers)
    for key, part in node.items():
        if key != "cte_map":
            yield from _foreign(part, defined, readers)


def _named(node: dict[str, Any], defined: frozenset[str], readers: set[str]) -> Iterator[str]:
    """What one node of a parsed SELECT names, where a source may not."""
    kind = str(node.get("type"))
    path = [text for text in (node.get("catalog_name"), node.get("schema_name")) if text]
    if kind == "BASE_TABLE" and (path not in ([], ["recurring"]) or node["table_name"].lower() not in defined):
        yield f"table {'.'.join([*path, node['table_name']])}"
    if kind == "TABLE_FUNCTION":
        function = node["function"]
        path = [text for text in (function["catalog"], function["schema"]) if text]
        if path or function["function_name"].lower() not in readers:
            yield f"function {'.'.join([*path, function['function_name']])}"
    if kind == "SHOW_REF":
        yield "a description of tables"
    if kind.endswith("_NODE") and kind not in QUERIES:
        yield f"{kind.partition('_')[0].lower()}, which writes"

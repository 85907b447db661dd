"""What a source's SELECTs gave so far, by contract version: so a broken delivery is told apart from a changed source.

`raw.contracts` holds every column that a SELECT gave under a version, with the SELECT's words and the settings that give its
rows their meaning. Both may change only together with `contract_version` in source.toml; then all rows are read anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from tasks.adapters import read_adapter
from tasks.errors import ContractError
from tasks.select_text import edits, text_hash, words
from tasks.sources import CONTRACTS, DATE_COLUMN, Source
from tasks.warehouse import SQL, read_select, replace_partition, scalar, set_variables, supersede

COLUMNS = (
    "source varchar, contract_version integer, table_name varchar, select_name varchar, column_name varchar,"
    " column_type varchar, select_hash varchar, select_text varchar, settings varchar, first_seen_at timestamp,"
    " last_seen_at timestamp"
)
LOST = re.compile(
    r'column(?:s? with names?:)? "(.+?)" (?:not found|in \w+ list not found|referenced that exists|is missing|was read from'
    r'|do(?:es)? not exist)|does not have a column named "(.+?)"|find key "(.+?)" in|expected to find (\S+), but',
    re.IGNORECASE,
)
FIRST_LINE = re.compile(r"first line must be '(.*)', found '(.*)'")
FILE = re.compile(r'not be found in file "(.+?)"|^Current file: (.+)$|Error: (.+?): its first line', re.MULTILINE)
# From narrow to wide: a column on record holds what comes in a narrower type.
NUMBERS = ["UTINYINT", "TINYINT", "USMALLINT", "SMALLINT", "UINTEGER", "INTEGER", "UBIGINT", "BIGINT", "HUGEINT"]
NUMBERS += ["FLOAT", "DOUBLE"]
MOST_TOLD = 4


def check_contract(warehouse: DuckDBPyConnection, source: Source) -> None:
    """Before anything is read: `ContractError` where the source's folder is not what the home was loaded with.

    White space, comments and settings that leave the meaning of rows alone may change, and SELECTs may be added.
    """
    warehouse.execute(f"create table if not exists raw.contracts ({COLUMNS})")
    warehouse.execute("create or replace table delivery.contracts as from raw.contracts limit 0")
    version, newest, toml = source.contract_version, _newest(warehouse, source), source.folder / "source.toml"
    if version < newest:
        raise ContractError(
            f"{toml}: contract_version is {version}, but this home was loaded under {newest}; restore the folder as it was "
            "then, or take another --home"
        )
    if version == newest and (
        differences := [*_settings_changed(warehouse, source), *_selects_changed(warehouse, source)]
    ):
        more = f" and {len(differences) - MOST_TOLD} more" if len(differences) > MOST_TOLD else ""
        raise ContractError(
            f"{source.folder} has changed since {_last_seen(warehouse, source)}, when it was last loaded as contract "
            f"{version}: {'; '.join(differences[:MOST_TOLD])}{more}. Undo this, or set contract_version = {version + 1} in "
            f"{toml}: then all rows are read anew, and published dates that rest on older ones are marked stale"
        )


def check_output(warehouse: DuckDBPyConnection, source: Source, table: str, path: Path, found: dict[str, str]) -> None:
    """Notes what a SELECT gives for this delivery; `ContractError` where it gave more, or wider types, before.

    found: DuckDB type by output column.
    """
    name, text = _name(source, path), words(path)
    known = _columns_on_record(warehouse, source, name)
    for column, (kind, seen_on) in known.items():
        now = found.get(column)
        if now is None:
            raise _broken(source, path, [column], "the files", seen_on)
        if now != kind and not (now in NUMBERS and kind in NUMBERS and NUMBERS.index(now) < NUMBERS.index(kind)):
            raise ContractError(
                f"{path}: column {column} is {now} and was {kind} until {seen_on}: the delivery is broken, or the source has "
                f"changed: then cast the column in the SELECT and raise contract_version in {source.folder / 'source.toml'}"
            )
    rows = [
        (source.name, source.contract_version, table, name, column, kind, text_hash(text), text, _settings(source))
        for column, kind in found.items()
    ]
    for row in rows:
        warehouse.execute("insert into delivery.contracts values (?, ?, ?, ?, ?, ?, ?, ?, ?, null, null)", row)


@contextmanager
def reading_as_before(warehouse: DuckDBPyConnection, source: Source, paths: list[Path]) -> Iterator[None]:
    """Around the reading of a delivery: a column that is gone from the files is a `ContractError` that says until when it came.

    Only of SELECTs on record: a new one may be wrong itself.
    """
    try:
        yield
    except duckdb.Error as error:
        columns, where = _lost_columns(str(error)), _place(str(error))
        for path in paths if columns else []:
            if known := _columns_on_record(warehouse, source, _name(source, path)):
                raise _broken(source, path, columns, where, next(iter(known.values()))[1]) from error
        raise


def contract_mark(source: Source) -> str:
    """What the content hashes of a contract's delivery units begin with, so that those of an earlier one count as changed."""
    return f"{source.contract_version}." if source.contract_version > 1 else ""


def contract_notes(warehouse: DuckDBPyConnection, source: Source) -> list[dict[str, Any]]:
    """What is new in what `land` took in, as rows of `mart.quality`: nothing for a first delivery."""
    newest = _newest(warehouse, source)
    if not newest:
        return []
    if newest < source.contract_version:
        return [_note("source read anew under a raised contract_version", *_left_behind(warehouse, source, newest))]
    query = (
        "select table_name, string_agg(column_name, ', ' order by column_name), count(*) from delivery.contracts"
        " where (select_name, column_name) not in (select (select_name, column_name) from raw.contracts"
        "  where contract_version = $version) group by table_name order by table_name"
    )
    new = warehouse.execute(query, {"version": newest}).fetchall()
    rule = "columns that were not delivered before"
    return [_note(rule, count, columns, f"delivery.new_{table}") for table, columns, count in new]


def record_contract(warehouse: DuckDBPyConnection, source: Source, loaded_at: datetime) -> None:
    """Enters what this delivery's SELECTs gave; call it in the transaction that loads. Under a raised version, the rows of a
    table that has no SELECT any more are superseded.
    """
    version = source.contract_version
    if 0 < _newest(warehouse, source) < version:
        for table in CONTRACTS.keys() - source.every_select.keys():
            _retire(warehouse, table, loaded_at)
    set_variables(warehouse, contract_version=version, loaded_at=loaded_at)
    merged = read_select(SQL / "delivery/contracts.sql", warehouse)
    warehouse.execute(f"create or replace temp table contracts as {merged}")
    replace_partition(warehouse, "raw.contracts", "select * from contracts", contract_version=version)


def _newest(warehouse: DuckDBPyConnection, source: Source) -> int:
    """The newest contract version on record, 0 for none."""
    query = "select coalesce(max(contract_version), 0) from raw.contracts where source = $source"
    return scalar(warehouse, query, source=source.name)


def _last_seen(warehouse: DuckDBPyConnection, source: Source) -> date:
    query = "select cast(max(last_seen_at) as date) from raw.contracts where contract_version = $version"
    return scalar(warehouse, query, version=source.contract_version)


def _columns_on_record(warehouse: DuckDBPyConnection, source: Source, name: str) -> dict[str, tuple[str, date]]:
    """Type by column that a SELECT gave under the source's contract, and the day when it last did."""
    query = (
        "select column_name, column_type, cast(last_seen_at as date) from raw.contracts"
        " where contract_version = $version and select_name = $name order by last_seen_at desc, column_name"
    )
    rows = warehouse.execute(query, {"version": source.contract_version, "name": name}).fetchall()
    return {column: (kind, seen_on) for column, kind, seen_on in rows}


def _settings(source: Source) -> str:
    """The settings of source.toml that say what its rows mean."""
    key, types = sorted(source.natural_key), sorted(source.event_strength)
    return json.dumps({"time_zone": source.time_zone, "natural_key": key, "event types": types}, ensure_ascii=False)


def _settings_changed(warehouse: DuckDBPyConnection, source: Source) -> Iterator[str]:
    query = "select arg_max(settings, last_seen_at) from raw.contracts where contract_version = $version"
    known = json.loads(scalar(warehouse, query, version=source.contract_version))
    for name, value in json.loads(_settings(source)).items():
        if value != known[name]:
            yield f"source.toml: {name} was {_listed(known[name])}, is {_listed(value)}"


def _listed(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _selects_changed(warehouse: DuckDBPyConnection, source: Source) -> Iterator[str]:
    query = "select distinct select_name, select_text from raw.contracts where contract_version = $version order by all"
    there = {_name(source, path): path for paths in source.every_select.values() for path in paths}
    for name, known in warehouse.execute(query, {"version": source.contract_version}).fetchall():
        if name not in there:
            yield f"{name}.sql is gone"
        elif (now := words(there[name])) != known:
            yield from _columns_changed(warehouse, source, name, there[name])
            yield f"{name}.sql: {edits(known, now)}"


def _columns_changed(warehouse: DuckDBPyConnection, source: Source, name: str, path: Path) -> Iterator[str]:
    """Columns that the changed SELECT gives in another way, where it can be asked before files are read."""
    try:
        query = read_adapter(path, warehouse)
        found = {row[0]: row[1] for row in warehouse.execute(f"describe {query}").fetchall()}
    except (duckdb.Error, ContractError):
        return
    known = {column: kind for column, (kind, _) in _columns_on_record(warehouse, source, name).items()}
    for column in dict.fromkeys([*known, *found]):
        if known.get(column) != found.get(column):
            yield f"{name}.sql: column {column} was {known.get(column, 'not there')}, is {found.get(column, 'not there')}"


def _name(source: Source, path: Path) -> str:
    return path.relative_to(source.folder).with_suffix("").as_posix()


def _lost_columns(said: str) -> list[str]:
    """The columns that DuckDB, or a reader of lines, did not find in a file."""
    if header := FIRST_LINE.search(said):
        wanted, found = ([name.strip().strip('"') for name in line.split(",")] for line in header.groups())
        return [name for name in wanted if name.lower() not in {other.lower() for other in found}]
    lost = LOST.search(said)
    return [name for name in lost.groups() if name][:1] if lost else []


def _place(said: str) -> str:
    file, header = FILE.search(said), FIRST_LINE.search(said)
    name = Path(file[file.lastindex or 0]).name if file else "the files"
    return f"{name}, whose first line is '{header[2]}'," if header else name


def _broken(source: Source, path: Path, columns: list[str], where: str, seen_on: date) -> ContractError:
    named = f"column {columns[0]} is" if len(columns) == 1 else f"columns {', '.join(columns)} are"
    return ContractError(
        f"{path}: {named} missing from {where} and came until {seen_on}: the delivery is broken, or the source has changed: "
        f"then adapt the SELECT and raise contract_version in {source.folder / 'source.toml'}"
    )


def _left_behind(warehouse: DuckDBPyConnection, source: Source, newest: int) -> tuple[int, str]:
    """Rows of files that are no longer delivered: they stay as the earlier contract read them."""
    query = (
        "select coalesce(sum(row_count), 0), count(distinct source_file) from raw.deliveries"
        " where superseded_at is null and source_file not in (select source_file from delivery.counts)"
    )
    rows, files = warehouse.execute(query).fetchall()[0]
    told = f"contract {newest} → {source.contract_version}"
    return int(rows), told + (
        f"; {rows:,} rows of {files:,} files that are gone stay as they were read" if rows else ""
    )


def _note(rule: str, failed: int, observed: str, table_name: str = "delivery.contracts") -> dict[str, Any]:
    told = {"table_name": table_name, "rule": rule, "severity": "info", "success": not failed}
    return told | {"checked": None, "failed": failed, "observed": observed, "failing_query": None}


def _retire(warehouse: DuckDBPyConnection, table: str, at: datetime) -> None:
    units = (
        f"select source_file, delivery_date from raw.deliveries where table_name = '{table}' and superseded_at is null"
    )
    supersede(warehouse, f"raw.{table}", DATE_COLUMN[table], units, at)
    for ledger in ("quarantine.rows", "raw.deliveries"):
        supersede(warehouse, ledger, "delivery_date", units, at, f"old.table_name = '{table}'")

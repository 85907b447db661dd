"""When each file arrived, where the source says so: `arrivals.csv` in the input folder, beside the data."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from duckdb import DuckDBPyConnection

from tasks.errors import ContractError

MANIFEST = "arrivals.csv"
COLUMNS = ["file", "arrived_at"]


def note_arrivals(warehouse: DuckDBPyConnection, input_root: Path) -> None:
    """Fills `delivery.arrivals` from the manifest; one that an adapter reads as data, under other columns, is data.

    Raises `ContractError` for a manifest that cannot be read, and for one that an adapter reads too.
    """
    path = input_root / MANIFEST
    if not path.is_file():
        return
    readers = "select distinct table_name from delivery.counts where source_file = $file order by all"
    read_by = [name for (name,) in warehouse.execute(readers, {"file": MANIFEST}).fetchall()]
    if read_by and _header(path) != COLUMNS:
        return
    if read_by:
        raise ContractError(
            f"{path} says when files arrived, and {read_by[0]}.sql reads it as data; leave it out of that SELECT's pattern"
        )
    arrivals = read_manifest(path)
    columns = {"source_file": pa.array(list(arrivals), pa.string())}
    columns["arrived_at"] = pa.array(list(arrivals.values()), pa.timestamp("us"))
    warehouse.register("manifest", pa.table(columns))
    warehouse.execute("insert into delivery.arrivals by name from manifest")
    warehouse.unregister("manifest")


def read_manifest(path: Path) -> dict[str, datetime]:
    """By file, as the adapters name it, when it arrived in UTC; a time without a zone is UTC.

    Raises `ContractError` for other columns, a file named twice, and a time or a line that cannot be read.
    """
    if _header(path) != COLUMNS:
        raise ContractError(f"{path}: its columns must be {', '.join(COLUMNS)}, found {', '.join(_header(path))[:200]}")
    arrivals: dict[str, datetime] = {}
    for number, fields in enumerate(_lines(path)[1:], start=2):
        if not fields:
            continue
        file, told = fields if len(fields) == len(COLUMNS) else ("", "")
        if not file or file in arrivals or (arrived_at := _time(told)) is None:
            raise ContractError(
                f"{path} line {number}: found {','.join(fields)[:200]!r}; each line must name another file, then the time it "
                "arrived in UTC, like 2024-03-05T22:15:00"
            )
        arrivals[file] = arrived_at
    return arrivals


def _header(path: Path) -> list[str]:
    return [name.strip() for name in next(iter(_lines(path)), [])]


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [[field.strip() for field in fields] for fields in csv.reader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContractError(f"{path} cannot be read: {error}; it must be CSV in UTF-8") from error


def _time(text: str) -> datetime | None:
    """UTC without a zone, as the warehouse stores it."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        return None

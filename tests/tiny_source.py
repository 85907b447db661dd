"""A source of a few rows that a test states by hand: its folder of SELECTs, its CSV files and its home."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from uuid import uuid4

from tasks.ingest import land, load
from tasks.sources import CONTRACTS, Source, load_source
from tasks.transform import build_graph, build_staging
from tasks.validate import validate_delivery
from tasks.warehouse import open_warehouse

Row = dict[str, str]
Fates = dict[tuple[str, str | None], int]

SETTINGS = """
title = "A tiny source"
max_reject_share = 1.0
event_strength = { view = 0.5, purchase = 2.0 }
"""
READ_CSV = "read_csv(getvariable('input') || '/{table}*.csv', all_varchar = true, header = true, filename = true)"
FURTHER = {  # attributes of the tiny users and items: text, number, list and date
    "users": "country, try_cast(age as integer) as age",
    "items": "brand, string_split(tags, '|') as tags, try_cast(price as double) as price, try_cast(made as date) as made",
}


def event(user: str = "u1", item: str = "i1", at: str = "2024-03-01 10:00:00", **changes: str) -> Row:
    """A good purchase, or what `changes` make of it."""
    row = {"user_id": user, "item_id": item, "event_type": "purchase", "occurred_at": at, "value": "1", "excluded": ""}
    return row | changes


@dataclass(frozen=True)
class TinySource:
    """Three folders below one: `source`, `input` and `home`."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def source(self) -> Source:
        return load_source(str(self.root / "source"))

    def deliver(self, file: str, rows: list[Row]) -> None:
        """Writes `<table>….csv`; the table's adapter reads it together with its other files."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=["line", *rows[0]])
        writer.writeheader()
        writer.writerows({"line": str(line)} | row for line, row in enumerate(rows))
        (self.input / file).write_text(text.getvalue())

    def adapt(self, table: str, query: str) -> None:
        """Makes `query` the adapter of a table."""
        (self.root / "source" / f"{table}.sql").write_text(query)

    def land(self, as_of: date) -> dict[str, int]:
        return land(self.home, self.source, self.input, as_of)

    def ingest(self, as_of: date, run_id: str | None = None) -> dict[str, Fates]:
        """Lands, validates and loads; returns by file the rows of each fate and rule."""
        run_id = run_id or uuid4().hex
        self.land(as_of)
        validate_delivery(self.home, self.source, as_of, run_id)
        fates: dict[str, Fates] = {}
        for _, file, fate, rule, count in load(self.home, self.source, as_of, datetime.now(), run_id):
            fates.setdefault(file, {})[fate, rule] = count
        return fates

    def stage(self, as_of: date) -> None:
        """Ingests, then builds `staging.*` and `graph.*`."""
        self.ingest(as_of)
        build_staging(self.home, self.source, as_of)
        build_graph(self.home, self.source, as_of)

    def rows(self, query: str) -> list[tuple]:
        """The rows of a query on the warehouse."""
        with open_warehouse(self.home) as warehouse:
            return warehouse.execute(query).fetchall()


def tiny_source(root: Path, *, settings: str = "", tables: tuple[str, ...] = ("interactions",)) -> TinySource:
    """A source of CSV files; `settings` are lines that replace or join those of its source.toml."""
    tiny = TinySource(root)
    for folder in ("source", "input", "home"):
        (root / folder).mkdir(parents=True)
    names = {line.split("=")[0].strip() for line in settings.splitlines()}
    kept = [line for line in SETTINGS.splitlines() if line.split("=")[0].strip() not in names]
    (root / "source" / "source.toml").write_text("\n".join([*kept, settings]) + "\n")
    for table in tables:
        tiny.adapt(table, csv_select(table))
    return tiny


def csv_select(table: str) -> str:
    """The adapter that reads `<table>*.csv`, all columns as text, and filters nothing."""
    casts = {"TIMESTAMP": "try_cast({0} as timestamp) as {0}", "DATE": "try_cast({0} as date) as {0}"}
    casts |= {"DOUBLE": "try_cast({0} as double) as {0}", "VARCHAR": "{0}"}
    columns = [
        "try_cast(occurred_at as date) as event_date" if name == "event_date" else casts[kind].format(name)
        for name, kind in CONTRACTS[table].items()
    ]
    columns += [FURTHER[table]] if table in FURTHER else []
    excluded = "nullif(excluded, '')" if table == "interactions" else "cast(null as varchar)"
    provenance = [f"{excluded} as excluded_because", "parse_filename(filename) as source_file"]
    provenance += ["cast(line as bigint) as source_row"]
    return f"select {', '.join(columns + provenance)} from {READ_CSV.format(table=table)}\n"

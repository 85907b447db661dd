"""Kinds of damage to a whole file: each returns what is written instead of it, nothing where it does not apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pyarrow as pa

from benchmarks.damage import Row, Written
from benchmarks.thinned import BYTES, Clean, as_text, encode, join, split

Change = Callable[[Clean, str, Random], list[Written]]
HTML = b"<!doctype html>\n<html><body><h1>503 Service Unavailable</h1>\n<p>Try again later.</p></body></html>\n"


def _rows(clean: Clean, kind: str | None) -> list[Row]:
    return [Row(content, index, kind) for index, content in enumerate(clean.rows)]


def _written(clean: Clean, rows: list[Row], suffix: str = "") -> Written:
    return Written(encode(clean, [row.content for row in rows]), rows, suffix)


def _of_text(change: Callable[[bytes], bytes]) -> Change:
    """A text file whose bytes change and whose rows do not."""

    def damage(clean: Clean, kind: str, rng: Random) -> list[Written]:
        return [Written(change(encode(clean, clean.rows)), _rows(clean, kind))] if clean.layout.delimiter else []

    return damage


def _reordered(clean: Clean, kind: str, rng: Random) -> list[Written]:
    """The first column last, its header with it; without headers only where the columns then hold something else."""
    roles = clean.layout.columns
    moved = _selected(clean, [*range(1, len(roles)), 0])
    seen = clean.layout.header or not clean.layout.delimiter or [*roles[1:], roles[0]] != roles
    return [Written(encode(moved, moved.rows), _rows(clean, kind))] if seen else []


def _dropped(clean: Clean, kind: str, rng: Random) -> list[Written]:
    less = _selected(clean, list(range(len(clean.layout.columns) - 1)))
    return [Written(encode(less, less.rows), _rows(clean, kind))]


def _selected(clean: Clean, columns: list[int]) -> Clean:
    """The file with these columns."""
    if not clean.layout.delimiter:
        schema = pa.schema([clean.schema.field(i) for i in columns])
        return replace(clean, schema=schema, rows=[[cells[i] for i in columns] for cells in clean.rows])

    def selected(line: str) -> str:
        cells = split(line, clean.layout)
        return join([cells[i] for i in columns], clean.layout)

    header = selected(clean.header) if clean.layout.header else ""
    return replace(clean, header=header, rows=[selected(line) for line in clean.rows])


def _renamed(clean: Clean, kind: str, rng: Random) -> list[Written]:
    if clean.layout.delimiter and not clean.layout.header:
        return []
    schema = pa.schema([field.with_name(f"{field.name}_") for field in clean.schema])
    renamed = replace(clean, header=f"{clean.header}_", schema=schema)
    return [Written(encode(renamed, renamed.rows), _rows(clean, kind))]


def _retyped(clean: Clean, kind: str, rng: Random) -> list[Written]:
    text = as_text(clean)
    return [] if clean.layout.delimiter else [Written(encode(text, text.rows), _rows(clean, kind))]


def _schemas_differ(clean: Clean, kind: str, rng: Random) -> list[Written]:
    """The second half in a file of its own that lacks a column."""
    if not clean.layout.glob:
        return []
    half = len(clean.rows) // 2
    rows, less = _rows(clean, kind), _selected(clean, list(range(len(clean.layout.columns) - 1)))
    first = _written(clean, _rows(clean, None)[:half])
    return [first, Written(encode(less, less.rows[half:]), rows[half:], suffix="-2")]


def _duplicated(clean: Clean, kind: str, rng: Random) -> list[Written]:
    """One of twenty rows twice."""
    again = set(rng.sample(range(len(clean.rows)), max(1, len(clean.rows) // 20)))
    rows = []
    for row in _rows(clean, None):
        rows += [row, replace(row, kind=kind)] if row.origin in again else [row]
    return [_written(clean, rows)]


def _cut_short(clean: Clean, kind: str, rng: Random) -> list[Written]:
    """Without its last third; a text file's last line then lacks a field."""
    if not clean.layout.delimiter:
        data = encode(clean, clean.rows)
        return [Written(data[: len(data) * 2 // 3], _rows(clean, kind))]
    last = len(clean.rows) * 2 // 3
    cut = clean.rows[last].rpartition(clean.layout.delimiter)[0]
    written = _written(clean, [*_rows(clean, None)[:last], Row(cut, last, kind)])
    return [replace(written, data=written.data.removesuffix(b"\n"))]


def _garbage(clean: Clean, kind: str, rng: Random) -> list[Written]:
    """Random bytes for some lines of text or an eighth of a Parquet file, whose pages carry no checksums."""
    if not clean.layout.delimiter:
        data = encode(clean, clean.rows)
        middle, size = len(data) // 2, len(data) // 8
        return [Written(data[:middle] + rng.randbytes(size) + data[middle + size :], _rows(clean, kind))]
    lines = rng.randbytes(512).decode(BYTES).split("\n")
    rows, middle = _rows(clean, None), len(clean.rows) // 2
    rows[middle : middle + len(lines)] = [Row(line, None, kind) for line in lines]
    return [_written(clean, rows)]


def _replaced(clean: Clean, kind: str, rng: Random) -> list[Written]:
    lines = HTML.decode().splitlines()[clean.layout.header :]
    return [Written(HTML, [Row(line, None, kind) for line in lines] if clean.layout.delimiter else _rows(clean, kind))]


def _empty(clean: Clean, kind: str, rng: Random) -> list[Written]:
    return [Written(b"", _rows(clean, kind))]


FILE_KINDS: dict[str, Change] = {
    "byte order mark": _of_text(lambda data: b"\xef\xbb\xbf" + data),
    "CRLF line ends": _of_text(lambda data: data.replace(b"\n", b"\r\n")),
    "columns in another order": _reordered,
    "column dropped": _dropped,
    "columns renamed": _renamed,
    "column types changed": _retyped,
    "schemas that differ": _schemas_differ,
    "rows duplicated": _duplicated,
    "file cut short": _cut_short,
    "garbage in the middle of a file": _garbage,
    "file replaced by HTML": _replaced,
    "empty file": _empty,
}

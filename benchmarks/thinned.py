"""Real files of every source, thinned: how they are written, what their columns hold, their rows.

Text is handled as latin-1, which maps bytes to characters one to one, whatever the file's own encoding.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BYTES = "latin-1"
REPLACEMENT = "\ufffd"  # what decoders put in the place of a byte they cannot read
Content = Any  # a text file's line, or the list of a Parquet row's cells


@dataclass(frozen=True)
class Layout:
    """How a file is written, and what its columns hold.

    Roles: `id` is text, `digits` a whole number, `number` at least 0, `flag` 0 or 1; `time` and `type` are required, `since`,
    `until` (which may be far off) and `text` are not; `epoch` is in seconds, `millis` in ms; `day`, `month`, `year` stand
    apart; `raw` is left alone.
    """

    roles: str
    delimiter: str = ""  # none: Parquet
    header: bool = False
    quoted: bool = False  # a field may stand in quotes
    glob: bool = False  # the adapter reads any number of such files
    as_text: bool = False  # the adapter also reads Parquet columns of text
    names_for: str = ""  # a file whose rows change with the names given here

    @property
    def columns(self) -> list[str]:
        return self.roles.split()


@dataclass(frozen=True)
class Input:
    """A source's files; `folders` are those of `$ALMANAC_DATA` by the folder in the input, none: generated."""

    source: str
    as_of: date
    folders: dict[str, str]
    files: dict[str, Layout]


@dataclass(frozen=True)
class Clean:
    """A file's rows: lines without their ends, or lists of cells."""

    path: str
    layout: Layout
    header: str
    schema: pa.Schema
    rows: list[Content]

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def first_row(self) -> int:
        """The `source_row` of the first row."""
        return 1 + self.layout.header if self.layout.delimiter else 0


INPUTS = {
    "shop": Input("shop", date(2022, 2, 1), {}, {
        "interactions.parquet": Layout("raw id id type time number", glob=True),
        "users.parquet": Layout("id text number since", glob=True),
        "items.parquet": Layout("id text text text raw number since until", glob=True),
        "facts.parquet": Layout("id id id since", glob=True),
        "links.parquet": Layout("id id id number since", glob=True),
    }),
    "online-retail-ii": Input("online-retail-ii", date(2011, 8, 8), {"": "online-retail-ii"}, {
        "online_retail_ii.parquet": Layout("raw id text number time number digits text", glob=True, as_text=True),
    }),
    "movielens 100k": Input("movielens", date(1998, 4, 1), {"": "ml-100k"}, {
        "u.data": Layout("digits digits number epoch", "\t"),
        "u.item": Layout("digits text since text text" + 19 * " flag", "|"),
        "u.user": Layout("digits number text text text", "|"),
    }),
    "movielens latest": Input("movielens", date(2018, 6, 1), {"": "ml-latest-small", "kg": "movielens-kg"}, {
        "ratings.csv": Layout("digits digits number epoch", ",", header=True, quoted=True),
        "movies.csv": Layout("digits text text", ",", header=True, quoted=True),
        "tags.csv": Layout("digits digits text epoch", ",", header=True, quoted=True),
        "kg/kg.txt": Layout("digits text digits", "\t"),
        "kg/item_index2entity_id.txt": Layout("digits digits", "\t"),
    }),
    "lastfm-2k": Input("lastfm-2k", date(2011, 6, 15), {"": "lastfm-2k", "kg": "lastfm-2k-kg"}, {
        "user_taggedartists.dat": Layout("digits digits digits day month year", "\t", header=True),
        "artists.dat": Layout("digits text text text", "\t", header=True),
        "tags.dat": Layout("digits text", "\t", header=True, names_for="user_taggedartists.dat"),
        "user_artists.dat": Layout("digits digits number", "\t", header=True),
        "user_friends.dat": Layout("digits digits", "\t", header=True),
        "kg/kg.txt": Layout("digits text digits", "\t"),
        "kg/item_index2entity_id.txt": Layout("digits digits", "\t"),
    }),
    "globo-news": Input("globo-news", date(2017, 10, 16), {"": "globo-news"}, {
        "clicks.parquet": Layout("digits raw raw raw digits millis" + 6 * " raw", glob=True, as_text=True),
    }),
}  # fmt: skip


def read_clean(folder: Path, path: str, layout: Layout, most_rows: int) -> Clean:
    """Every n-th row of a file, so that about `most_rows` remain."""
    if not layout.delimiter:
        table = pq.read_table(folder / Path(path).name)
        schema = pa.schema([pa.field(field.name, field.type) for field in table.schema])
        columns = table.take(pa.array(range(0, len(table), _step(len(table), most_rows)))).columns
        cells = zip(*(column.to_pylist() for column in columns), strict=True)
        return Clean(path, layout, "", schema, [list(row) for row in cells])
    text = (folder / Path(path).name).read_bytes().decode(BYTES)
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    header = lines.pop(0) if layout.header else ""
    return Clean(path, layout, header, pa.schema([]), lines[:: _step(len(lines), most_rows)])


def _step(rows: int, most_rows: int) -> int:
    return max(1, round(rows / most_rows))


def as_text(clean: Clean) -> Clean:
    """A Parquet file with every cell as text."""
    schema = pa.schema([pa.field(name, pa.string()) for name in clean.schema.names])
    rows = [[None if cell is None else str(cell) for cell in cells] for cells in clean.rows]
    return Clean(clean.path, clean.layout, "", schema, rows)


def encode(clean: Clean, rows: list[Content]) -> bytes:
    """The bytes of the file with these rows."""
    if clean.layout.delimiter:
        text = "".join(f"{line}\n" for line in [clean.header] * clean.layout.header + rows)
        return text.replace(REPLACEMENT, REPLACEMENT.encode().decode(BYTES)).encode(BYTES)
    arrays = [pa.array([cells[i] for cells in rows], field.type) for i, field in enumerate(clean.schema)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=clean.schema), buffer)
    return buffer.getvalue()


def count_rows(clean: Clean, data: bytes) -> int:
    """The rows of a file, counted without the product: line ends, or the Parquet footer."""
    if clean.layout.delimiter:
        return data.count(b"\n") + (data[-1:] not in (b"", b"\n")) - clean.layout.header
    return pq.ParquetFile(io.BytesIO(data)).metadata.num_rows


def split(line: str, layout: Layout) -> list[str]:
    """The fields of a line."""
    return next(csv.reader([line])) if layout.quoted else line.split(layout.delimiter)


def join(cells: list[Any], layout: Layout) -> str:
    """The line of these fields."""
    if not layout.quoted:
        return layout.delimiter.join(cell or "" for cell in cells)
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()

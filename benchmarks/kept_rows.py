"""Finished rows of a benchmark, kept so that they are measured once: a JSON object per line of a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(file: Path, forgotten: Collection[str] = ()) -> list[Row]:
    """All rows; those of forgotten data sets are taken out of the file first."""
    if not file.exists():
        return []
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [row for row in rows if row["data"] not in forgotten]
    if len(kept) < len(rows):
        file.unlink()
        add_rows(file, kept)
    return kept


def add_rows(file: Path, rows: Iterable[Row]) -> None:
    """At the end of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)

"""Kinds of damage to cells, lines and whole files.

Every kind can be told from good data by nature: none swaps one valid value for another valid one. So whole fields are lost or
moved only where the rest cannot be read, and what an id may hold depends on the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from benchmarks.thinned import BYTES, REPLACEMENT, Clean, Content, Layout, encode, join, split

Outputs = list[tuple[Content, bool]]  # what is written instead of a row, and whether that is damaged


@dataclass(frozen=True)
class Row:
    """A row as written: from which clean row it came (None: from nowhere), and what kind of damage it took (None: none)."""

    content: Content
    origin: int | None
    kind: str | None = None


@dataclass(frozen=True)
class Written:
    """A file as written: its bytes and its rows in order. `suffix` of the stem tells a second file from the first."""

    data: bytes
    rows: list[Row]
    suffix: str = ""


def plan(clean: Clean, rate: float, rng: Random) -> dict[int, tuple[str, Outputs]]:
    """Damage of every kind that suits the file, for about `rate` of its rows: what is written instead of them."""
    kinds = [*CELL_KINDS, *(LINE_KINDS if clean.layout.delimiter else ())]
    wanted = min(len(clean.rows), max(len(kinds), round(rate * len(clean.rows))))
    chosen: dict[int, tuple[str, Outputs]] = {}
    for turn, index in enumerate(rng.sample(range(len(clean.rows)), wanted)):
        for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
            joins = kind == JOINED and (index + 1 == len(clean.rows) or {index - 1, index + 1} & chosen.keys())
            if not joins and (outputs := _damaged(clean, index, kind, rng)):
                chosen[index] = kind, outputs
                break
    joined = {index + 1 for index, (kind, _) in chosen.items() if kind == JOINED}
    return {index: damage for index, damage in chosen.items() if index not in joined}


def apply(clean: Clean, planned: dict[int, tuple[str, Outputs]], kinds: set[str]) -> Written:
    """The file with those kinds of the planned damage."""
    chosen = {index: damage for index, damage in planned.items() if damage[0] in kinds}
    rows = []
    for index, content in enumerate(clean.rows):
        if chosen.get(index - 1, ("",))[0] == JOINED:
            continue
        kind, outputs = chosen.get(index, (None, [(content, False)]))
        rows += [Row(new, index, kind if hurt else None) for new, hurt in outputs]
    return Written(encode(clean, [row.content for row in rows]), rows)


def _damaged(clean: Clean, index: int, kind: str, rng: Random) -> Outputs | None:
    content, layout = clean.rows[index], clean.layout
    if kind in LINE_KINDS:
        return LINE_KINDS[kind](clean, index, rng)
    cells = split(content, layout) if layout.delimiter else content
    roles, change = CELL_KINDS[kind]
    for column in rng.sample(range(len(cells)), len(cells)):
        old, role = cells[column], layout.columns[column]
        if role in roles.split() and old not in (None, "") and (new := change(old, role)) is not old:
            changed = [*cells[:column], new, *cells[column + 1 :]]
            return [(join(changed, layout) if layout.delimiter else changed, True)]
    return None


def _text(change: Callable[[str], str]) -> Callable[[Any, str], Any]:
    return lambda value, role: change(value) if isinstance(value, str) else value


def _put_in(character: str) -> Callable[[Any, str], Any]:
    return _text(lambda value: value[:1] + character + value[1:])


def _year(year: int) -> Callable[[Any, str], Any]:
    def change(value: Any, role: str) -> Any:
        if role in ("epoch", "millis"):
            seconds = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
            return type(value)(seconds * (1000 if role == "millis" else 1))
        if isinstance(value, str):
            return re.sub(r"\d{4}", f"{year:04}", value, count=1)
        return value.replace(year=year, day=1)

    return change


def _wrong_unit(value: Any, role: str) -> Any:
    if role in ("epoch", "millis"):
        return type(value)(int(value) * 1000 if role == "epoch" else int(value) // 1000)
    return datetime(1970, 1, 1) + (value - datetime(1970, 1, 1)) / 1000 if isinstance(value, datetime) else value


def _negative(value: Any, role: str) -> Any:
    return f"-{value}1" if isinstance(value, str) else -abs(value) - 1


def _float(text: str) -> Callable[[Any, str], Any]:
    return lambda value, role: type(value)(text) if isinstance(value, str | float) else value


CELL_KINDS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {  # roles, and value and role to a new value
    "id missing": ("id digits", lambda value, role: None),
    "id blank": ("id digits", _text(lambda value: "   ")),
    "blanks around an id": ("id digits", _text(lambda value: f" {value}  ")),
    "letters in a numeric id": ("digits", _put_in("x")),
    "negative id": ("digits", _negative),
    "decimal point in a numeric id": ("digits", _text(lambda value: f"{value}.5")),
    "control character in an id": ("id digits", _put_in("\x07")),
    "NUL in an id": ("id digits", _put_in("\x00")),
    "replacement character in an id": ("id digits", _put_in(REPLACEMENT)),
    "id of 10,000 characters": ("id digits", _text(lambda value: (value * 10_000)[:10_000])),
    "time missing": ("time epoch millis year", lambda value, role: None),
    "unparsable date": ("time since epoch millis day", _text(lambda value: "yesterday")),
    "impossible date": ("time since month", _text(lambda value: "2011-13-32" if len(value) > 2 else "13")),
    "date in the year 1": ("time since until epoch millis year", _year(1)),
    "date in the year 9999": ("time since epoch millis year", _year(9999)),
    "time in the wrong unit": ("time epoch millis", _wrong_unit),
    "not a number": ("number", _float("nan")),
    "infinite value": ("number", _float("inf")),
    "negative value": ("number", _negative),
    "text in a number": ("number flag epoch millis", _text(lambda value: "many")),
    "decimal comma": ("number", _text(lambda value: value.replace(".", ",") if "." in value else f"{value},5")),
    "unknown event type": ("type", _text(lambda value: "zap")),
}
JOINED = "two lines joined"
SWAPS = {("digits", "epoch"), ("digits", "since"), ("digits", "text"), ("day", "year")}


def _ends(line: str, layout: Layout) -> tuple[int, int]:
    """Where the first and the last delimiter stand."""
    return line.index(layout.delimiter), line.rindex(layout.delimiter)


def _swapped(clean: Clean, index: int, rng: Random) -> Outputs | None:
    """Two fields in each other's place, which one of them can be seen not to belong to."""
    cells, roles = split(clean.rows[index], clean.layout), clean.layout.columns
    pairs = [(i, j) for i in range(len(roles)) for j in range(len(roles)) if (roles[i], roles[j]) in SWAPS]
    pairs = [(i, j) for i, j in pairs if len(cells[j]) > 2 and (roles[j] != "text" or cells[j][0].isalpha())]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    cells[i], cells[j] = cells[j], cells[i]
    return [(join(cells, clean.layout), True)]


def _broken_in_two(clean: Clean, index: int, rng: Random) -> Outputs:
    line = clean.rows[index]
    at = rng.randint(*_ends(line, clean.layout))
    return [(line[:at], True), (line[at:], True)]


def _bytes_put_in(count: int, choices: bytes) -> Callable[[Clean, int, Random], Outputs]:
    """Bytes in the middle of the first field, which is a number in every text file here."""

    def change(clean: Clean, index: int, rng: Random) -> Outputs:
        line = clean.rows[index]
        return [(line[:1] + bytes(rng.choices(choices, k=count)).decode(BYTES) + line[1:], True)]

    return change


def _line(change: Callable[[str, Layout], str]) -> Callable[[Clean, int, Random], Outputs]:
    return lambda clean, index, rng: [(change(clean.rows[index], clean.layout), True)]


def _inserted(line: Callable[[Clean], str]) -> Callable[[Clean, int, Random], Outputs]:
    return lambda clean, index, rng: [(clean.rows[index], False), (line(clean), True)]


LINE_KINDS: dict[str, Callable[[Clean, int, Random], Outputs | None]] = {
    "field missing at the end": _line(lambda line, layout: line[: _ends(line, layout)[1]]),
    "extra field": _line(lambda line, layout: f"{line}{layout.delimiter}x"),
    "two fields swapped": _swapped,
    "wrong delimiter": _line(lambda line, layout: line.replace(layout.delimiter, ";")),
    "unclosed quote": _line(lambda line, layout: f'"{line}'),
    "stray quote": _line(lambda line, layout: f'{line[:1]}"{line[1:]}'),
    "line cut short": lambda clean, index, rng: [
        (clean.rows[index][: rng.randint(1, _ends(clean.rows[index], clean.layout)[1])], True)
    ],
    "line broken in two": _broken_in_two,
    JOINED: lambda clean, index, rng: [(clean.rows[index] + clean.rows[index + 1], True)],
    "blank line": _inserted(lambda clean: ""),
    "header in the middle": _inserted(lambda clean: clean.header or clean.layout.delimiter.join(clean.layout.columns)),
    "bytes that are no UTF-8": _bytes_put_in(2, b"\xff\xfe"),
    "garbage bytes": _bytes_put_in(20, bytes(byte for byte in range(256) if byte not in b"\n")),
    "carriage return in a line": _bytes_put_in(1, b"\r"),
}

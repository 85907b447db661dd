"""A source whose every name is an attack: on SQL, pages, markdown, terminals, paths; and a home in a folder named so."""

from __future__ import annotations

import csv
import random
from datetime import date, timedelta
from pathlib import Path

from tests.tiny_source import READ_CSV, TinySource, csv_select

AS_OF = date(2024, 4, 1)
SAFE_TO_LOAD = (  # texts that are ids like others
    "'; drop table mart.runs; --",
    '"; delete from mart.recommendations; --',
    "$$); drop schema raw cascade; --",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "../../../../etc/passwd",
    "[a](javascript:alert(1))",
    "![a](https://evil.example/a.png)",
    "https://evil.example/www.evil.example",
    "| a | b |",
    "`a` **b** ~~c~~ # d",
    "[red]a[/red]",
    "[/]",
    "[link=https://evil.example]a[/link]",
    "{{ 7 * 7 }} %s %(a)s {0}",
    "=cmd|' /C calc'!A0",
    "\N{RIGHT-TO-LEFT OVERRIDE}live\N{POP DIRECTIONAL FORMATTING}",
    "\N{LEFT-TO-RIGHT ISOLATE}a\N{POP DIRECTIONAL ISOLATE}\N{ZERO WIDTH SPACE}",
    "x" * 256,
    "u1",
    "u2",
    "u3",
)
NO_IDS = (  # texts that no id may hold: their rows are quarantined
    "\x1b]0;owned\x07",
    "\x1b[31mred\x1b[0m",
    "a\x00b",
    "a\rb",
    "a\nb",
    "x" * 10_000,
)
EVENT_TYPE = "<b onclick=alert(1)>buy</b>'; drop table mart.runs; --[red]"
RELATION = "<img src=x onerror=alert(1)>[red]'; drop table raw.facts; --"
EVENT_COLUMNS = ["user_id", "item_id", "event_type", "occurred_at", "value", "excluded"]
COLUMNS = ('a"; drop table mart.runs; --', "<script>alert(1)</script>", "[red]", "\x1b[31m", "y" * 300)
FILE = "interactions-'; drop table mart.runs; --<img src=x onerror=alert(1)>[red]\N{RIGHT-TO-LEFT OVERRIDE}.csv"
ROOT = 'r\'oot "q" <b> $(id) `id` %s ;| \N{SNOWMAN}'
SOURCE = "sou'rce [red] <img src=x onerror=alert(1)>"
SETTINGS = f"""
title = "<script>alert(1)</script> [red]"
description = "'; drop table mart.runs; --"
max_reject_share = 1.0
[event_strength]
"{EVENT_TYPE}" = 1.0
"""


def hostile_source(parent: Path) -> TinySource:
    """A source folder of a hostile name beside `input`, below a folder of a hostile name; the home is made by a run."""
    root = parent / ROOT
    for folder in (SOURCE, "input"):
        (root / folder).mkdir(parents=True)
    tiny = TinySource(root)
    (root / SOURCE / "source.toml").write_text(SETTINGS)
    (root / SOURCE / "interactions.sql").write_text(csv_select("interactions"))
    further = READ_CSV.format(table="items").replace(", filename = true", "")
    (root / SOURCE / "items.sql").write_text(
        "select item_id, cast(null as date) as valid_from, cast(null as date) as valid_to,"
        " * exclude (item_id, line), cast(null as varchar) as excluded_because, 'items.csv' as source_file,"
        f" cast(line as bigint) as source_row from {further}\n"
    )
    write(root / "input" / FILE, EVENT_COLUMNS, events())
    items = [[item, *(text + item[:20] for text in COLUMNS)] for item in SAFE_TO_LOAD]
    write(root / "input" / "items.csv", ["item_id", *COLUMNS], items)
    (root / SOURCE / "facts.sql").write_text(csv_select("facts"))
    facts = [[item, RELATION, SAFE_TO_LOAD[place // 3], ""] for place, item in enumerate(SAFE_TO_LOAD)]
    write(root / "input" / "facts.csv", ["subject", "relation", "object", "since"], facts)
    return tiny


def events() -> list[list[str]]:
    """Ten weeks in which users buy what lies near them, and at the end one bad row of each kind."""
    dice, rows = random.Random(7), []
    for day in range(70):
        at = f"{AS_OF - timedelta(days=70 - day)} 10:00:00"
        for place, user in enumerate(SAFE_TO_LOAD):
            if dice.random() < 0.5:
                item = SAFE_TO_LOAD[(place + dice.randrange(5)) % len(SAFE_TO_LOAD)]
                rows.append([user, item, EVENT_TYPE, at, "1", ""])
    return rows + [[text, "u1", EVENT_TYPE, f"{AS_OF - timedelta(days=9)} 10:00:00", "1", ""] for text in NO_IDS]


def write(file: Path, names: list[str], rows: list[list[str]]) -> None:
    """A CSV file in which every field stands in quotes; `line` numbers the rows."""
    with file.open("w", newline="") as text:
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(["line", *names])
        writer.writerows([str(line), *row] for line, row in enumerate(rows))

"""The corruption benchmark measures what it says: damage damages, and what gets through, is lost or miscounted is seen."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from benchmarks.corrupt import damage_files, damage_rows, damaged_rows, prepare
from benchmarks.damage import CELL_KINDS, LINE_KINDS, Row, Written, apply, plan
from benchmarks.damaged_files import FILE_KINDS
from benchmarks.outcomes import Outcome, Tally, judge
from benchmarks.thinned import Clean, Layout, count_rows, encode

TEXT = Clean(
    "events.csv",
    Layout("digits text epoch number type day month year since", ",", header=True, quoted=True),
    "user,title,at,value,kind,day,month,year,made",
    pa.schema([]),
    [f'{n},"A title, {n}",8812{n:05},3.5,view,{n % 28 + 1},7,2011,2011-07-{n % 28 + 1:02}' for n in range(10, 210)],
)
SCHEMA = pa.schema({"user": pa.string(), "at": pa.timestamp("us"), "value": pa.float64(), "made": pa.date32()})
PARQUET = Clean(
    "events.parquet",
    Layout("id time number since", glob=True),
    "",
    SCHEMA,
    [[f"u{n}", datetime(2024, 1, 1 + n % 28), float(n), date(2011, 7, 1 + n % 28)] for n in range(200)],
)


@pytest.mark.parametrize("clean", [TEXT, PARQUET], ids=["text", "Parquet"])
def test_every_kind_of_damage_to_rows_changes_them_and_nothing_else(clean: Clean) -> None:
    planned = plan(clean, 0.5, Random(7))
    kinds = {kind for kind, _ in planned.values()}
    assert kinds == {*CELL_KINDS, *LINE_KINDS} if clean is TEXT else {"id missing", "time in the wrong unit"} < kinds
    written = apply(clean, planned, kinds)
    assert {row.kind for row in written.rows} == kinds | {None}
    for row in written.rows:
        assert row.origin is not None
        assert (row.content == clean.rows[row.origin]) == (row.kind is None), row
    assert count_rows(clean, written.data) == len(written.rows)
    assert apply(clean, planned, set()).data == encode(clean, clean.rows)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_every_kind_of_damage_to_files_changes_one_of_them(kind: str) -> None:
    written = [(clean, part) for clean in (TEXT, PARQUET) for part in FILE_KINDS[kind](clean, kind, Random(7))]
    assert written
    for clean, part in written:
        assert part.data != encode(clean, clean.rows)
        assert part.suffix or any(row.kind == kind for row in part.rows) or kind == "schemas that differ"


def outcome(*fates: tuple[int, str, str], **counts: int) -> Outcome:
    """What became of the rows of a table: row number, fate, user; and what the accounting says."""
    found = Outcome()
    for row, fate, user in fates:
        found.rows["interactions", "events.csv", row].append((fate, None, (user,) if fate == "loaded" else ()))
    found.counts["interactions", "events.csv"] = Counter(counts)
    return found


def test_what_gets_through_or_is_lost_or_miscounted_is_seen() -> None:
    clean = Clean("events.csv", TEXT.layout, TEXT.header, TEXT.schema, ["1,a", "2,b", "3,c"])
    reference = outcome((2, "loaded", "1"), (3, "loaded", "2"), (4, "loaded", "3"), loaded=3)
    rows = [Row("1,a", 0), Row("x,b", 1, "letters in a numeric id"), Row("3,c", 2)]
    written = Written(encode(clean, [row.content for row in rows]), rows)
    verdicts = {
        "caught": outcome((2, "loaded", "1"), (3, "quarantined", "x"), (4, "loaded", "3"), loaded=2, quarantined=1),
        "slipped": outcome((2, "loaded", "1"), (3, "loaded", "x"), (4, "loaded", "3"), loaded=3),
        "lost": outcome((2, "loaded", "1"), (3, "quarantined", "x"), (4, "quarantined", "3"), loaded=1, quarantined=2),
        "changed": outcome((2, "loaded", "1"), (3, "quarantined", "x"), (4, "loaded", "4"), loaded=2, quarantined=1),
        "miscounted": outcome((2, "loaded", "1"), (3, "quarantined", "x"), (4, "loaded", "3"), loaded=3),
        "vanished": outcome((2, "loaded", "1"), (4, "loaded", "3"), loaded=2),
    }
    seen = {}
    for name, found in verdicts.items():
        tally = Tally()
        judge(tally, clean, written, reference, found)
        seen[name] = damaged_rows(tally, of_files=False)[1], tally.good_rows_lost, tally.wrong_accounts
    assert seen == {
        "caught": (0, 0, 0),
        "slipped": (1, 0, 0),
        "lost": (0, 1, 0),
        "changed": (0, 1, 0),
        "miscounted": (0, 0, 1),
        "vanished": (1, 0, 1),
    }


def test_damage_to_a_small_shop_costs_no_good_row_and_adds_up(tmp_path: Path) -> None:
    bench, tally = prepare("shop", Path(), tmp_path, most_rows=600), Tally()
    damage_rows(bench, bench.files, tally, Random(7))
    for kind in ("rows duplicated", "columns in another order"):
        damage_files(bench, bench.files, kind, tally, Random(7))
    damaged, missed = damaged_rows(tally, of_files=False)
    assert damaged > 50 and missed == 0, tally.examples
    assert damaged_rows(tally, of_files=True)[1] == 0, tally.examples
    assert (tally.good_rows_lost, tally.wrong_accounts, tally.runs["refused"]) == (0, 0, 0), tally.examples

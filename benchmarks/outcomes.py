"""What an ingest does with every row, and what became of the damaged ones compared with clean files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

from benchmarks.damage import Written
from benchmarks.thinned import Clean, count_rows
from tasks.errors import RejectLimitError
from tasks.ingest import land, landed, load
from tasks.sources import Source
from tasks.transform import build_staging
from tasks.validate import validate_delivery
from tasks.warehouse import open_warehouse

Fate = tuple[str, str | None, tuple[str, ...]]  # fate, rule, values
Fates = list[Fate]  # of one row of a file in one table; a deferred one has none
CAUGHT = ("repaired", "deferred", "excluded", "quarantined", "refused")
VERDICTS = (*CAUGHT, "misnamed", "slipped", "lost", "crashed")  # the worst last
FAULT_RULES = {  # damage that an exclusion names
    "no customer": ("id missing", "id blank"),
    "not signed in": ("id missing",),
    "not a product": ("id blank", "two fields swapped"),
    "quantity not positive": ("negative value",),
}
# damage that a deferral names
FUTURE = ("date in the year 9999", "time in the wrong unit", "garbage in the middle of a file")
VALUES = "* exclude (source_file, source_row, excluded_because, loaded_at, superseded_at)"


@dataclass
class Outcome:
    """Where rows went: as the tables show it by table, file and row, and as the accounting says by table and file."""

    rows: dict[tuple[str, str, int], Fates] = field(default_factory=lambda: defaultdict(list))
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    staged: dict[str, Counter[tuple]] = field(default_factory=dict)  # by table, without counts of duplicates
    over_limit: bool = False  # whether the source's own reject limit refuses the files


@dataclass
class Tally:
    """What the trials of one input showed."""

    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)  # rows by kind and verdict
    runs: Counter[str] = field(default_factory=Counter)
    rows_read: int = 0
    good_rows_lost: int = 0
    wrong_accounts: int = 0
    examples: dict[tuple[str, str, str], str] = field(default_factory=dict)  # by file, kind and verdict

    def note(self, file: str, kind: str, verdict: str, rows: int, example: object) -> None:
        """Counts rows of one kind of damage; the first example of each verdict is kept."""
        self.verdicts[kind, verdict] += rows
        self.examples.setdefault((file, kind, verdict), str(example))


def ingest(source: Source, as_of: date, folder: Path, home: Path) -> Outcome:
    """Lands, validates, loads and stages; loads without a reject limit where the source's own refuses the files."""
    outcome = Outcome()
    land(home, source, folder, as_of)
    validate_delivery(home, source, as_of, "corrupt")
    try:
        fates = load(home, source, as_of, datetime(2020, 1, 1), "corrupt")
    except RejectLimitError:
        outcome.over_limit = True
        source = source.model_copy(update={"max_reject_share": 1.0})
        fates = load(home, source, as_of, datetime(2020, 1, 1), "corrupt")
    for table, file, fate, _, rows in fates:
        outcome.counts[table, file][fate] += rows
    build_staging(home, source, as_of)
    with open_warehouse(home) as warehouse:
        for table in landed(warehouse):
            raw = f"select source_file, source_row, excluded_because, {VALUES} from raw.{table} where superseded_at is null"
            for file, row, rule, *cells in warehouse.execute(raw).fetchall():
                fate = "excluded" if rule else "loaded"
                outcome.rows[table, file, row].append((fate, rule, tuple(map(str, cells))))
            origin = "('source_file', 'source_row', 'duplicate_count')"
            staged = f"select columns(lambda name: name not in {origin}) from staging.{table}"
            outcome.staged[table] = Counter(tuple(map(str, row)) for row in warehouse.execute(staged).fetchall())
        rejected = "select table_name, source_file, source_row, rule from quarantine.rows"
        for table, file, row, rule in warehouse.execute(rejected).fetchall():
            outcome.rows[table, file, row].append(("quarantined", rule, ()))
    return outcome


def verdict(got: Fates, was: Fates | None, kind: str) -> str:
    """What became of a damaged row, given what became of the clean one it came from (None: it came from none)."""
    fates = {fate for fate, *_ in got}
    if got == was:
        return "repaired" if "loaded" in fates else "excluded" if fates else "deferred"
    if "loaded" in fates:
        return "slipped"
    if "quarantined" in fates:
        return "quarantined"
    if not got:
        return "deferred" if kind in FUTURE else "misnamed"
    unused = was is not None and (not was or was[0][0] == "excluded")
    return "excluded" if unused or kind in FAULT_RULES.get(str(got[0][1]), ()) else "misnamed"


def judge(tally: Tally, clean: Clean, written: Written, reference: Outcome, outcome: Outcome) -> None:
    """Compares each row of a written file with the clean one it came from, in every table that the file feeds."""
    path = Path(clean.name)
    file = path.with_stem(path.stem + written.suffix).name
    fed = {table: counts.total() for (table, name), counts in reference.counts.items() if name == clean.name}
    whole = [table for table, rows in fed.items() if rows == len(clean.rows)]  # one row per row, no summary
    summaries = {
        table: {fates[0][2][:1] for (name, *_), fates in reference.rows.items() if name == table}
        for table in fed.keys() - set(whole)
    }
    tally.rows_read += len(written.rows)
    shown: Counter[tuple[str, str]] = Counter()
    for position, row in enumerate(written.rows, clean.first_row):
        found = []
        for table in fed:
            got = outcome.rows.get((table, file, position), [])
            origin = (table, clean.name, clean.first_row + row.origin) if row.origin is not None else None
            was = reference.rows.get(origin, []) if origin else None
            if table in whole:
                shown[table, "+".join(fate for fate, *_ in got) or "deferred"] += 1
                found.append(verdict(got, was, row.kind) if row.kind else "repaired" if got == was else "lost")
            elif any(fate == "loaded" and values[:1] not in summaries[table] for fate, _, values in got):
                found.append("slipped")  # an id that no good row has
        worst = max(found, key=VERDICTS.index)
        if row.kind:
            tally.note(clean.name, row.kind, worst, 1, row.content)
        elif worst != "repaired":
            tally.good_rows_lost += 1
            tally.note(clean.name, "none", worst, 1, row.content)
    for table in whole:
        counts = outcome.counts[table, file]
        exact = counts.total() == count_rows(clean, written.data) and all(
            shown[table, fate] == rows for fate, rows in counts.items()
        )
        if not exact:
            tally.wrong_accounts += 1
            tally.note(file, "accounting", table, 1, (counts, shown))

"""Damages real files in nearly fifty ways and measures that no damaged row gets through, no good row is lost, and all add up.

Run: python -m benchmarks.corrupt [--trials N] [--seed S] [--source NAME] (needs ALMANAC_DATA for all but the shop).
A damaged row is caught when it is quarantined, excluded by a rule that names the fault, deferred because of its date, read as
if it were clean, or when the input is refused with a message. A run of all inputs rewrites benchmarks/results/corrupt.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from benchmarks.damage import CELL_KINDS, LINE_KINDS, Written, apply, plan
from benchmarks.damaged_files import FILE_KINDS
from benchmarks.outcomes import CAUGHT, VERDICTS, Outcome, Tally, ingest, judge
from benchmarks.thinned import INPUTS, Clean, Input, as_text, encode, read_clean
from tasks.errors import DataRefused
from tasks.ingest import land
from tasks.shop import write_shop
from tasks.sources import Source, load_source

RESULTS = Path(__file__).parent / "results" / "corrupt.md"
MOST_ROWS = 10_000  # per file
RATES = 0.001, 0.3  # of damaged rows
ABOUT = """# Damaged files

Written by `{command}`: real files, thinned to some {rows:,} rows each, 0.1 % to 30 % of
the rows damaged in one of the ways below, and whole files damaged in one way at a time. What a source's own limit refuses
is loaded without the limit, so that the fate of each row is seen. *Read as clean*: with exactly the values of the clean file.
*Excluded*: by a rule that names the fault, or as the clean row was. *Not caught*: loaded with other values, or kept out for a
reason that is not the fault."""
KINDS = [*CELL_KINDS, *LINE_KINDS, *FILE_KINDS]
Job = tuple[str, str]  # a file and a kind of damage
Write = Callable[[list[Job]], dict[str, list[Written]]]  # files as written with these damages


@dataclass(frozen=True)
class Bench:
    """An input under test: its clean files and their outcome, and folders that every run makes anew."""

    given: Input
    source: Source
    files: dict[str, Clean]
    reference: Outcome
    scratch: Path

    @property
    def home(self) -> Path:
        return self.scratch / "home"

    @property
    def folder(self) -> Path:
        return self.scratch / "input"


def prepare(name: str, data: Path, scratch: Path, most_rows: int = MOST_ROWS) -> Bench:
    """Thins the input's files and ingests them as they are."""
    given = INPUTS[name]
    if not given.folders:
        write_shop(scratch / "shop", users=400, items=150, days=420)
    files = {}
    for path, layout in given.files.items():
        kept = given.folders.get("kg" if path.startswith("kg/") else "")
        files[path] = read_clean(data / kept if kept else scratch / "shop", path, layout, most_rows)
    bench = Bench(given, load_source(given.source), files, Outcome(), scratch)
    deliver(bench, {})
    reference = ingest(bench.source, given.as_of, bench.folder, bench.home)
    return Bench(given, bench.source, files, reference, scratch)


def deliver(bench: Bench, damaged: dict[str, list[Written]]) -> None:
    """An empty home, and an input of the clean files with the damaged ones in their places."""
    for folder in (bench.home, bench.folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for path, clean in bench.files.items():
        (bench.folder / path).parent.mkdir(exist_ok=True)
        for written in damaged.get(path) or [Written(encode(clean, clean.rows), [])]:
            target = bench.folder / path
            target.with_stem(target.stem + written.suffix).write_bytes(written.data)


def refusals(bench: Bench, jobs: list[Job], write: Write) -> dict[Job, Exception]:
    """The damages that keep the whole input from being landed, each by itself."""
    deliver(bench, write(jobs))
    try:
        land(bench.home, bench.source, bench.folder, bench.given.as_of)
    except Exception as error:
        if len(jobs) == 1:
            return {jobs[0]: error}
        size = len(jobs) // 2 if len(jobs) > 8 else 1
        parts = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        return {job: error for part in parts for job, error in refusals(bench, part, write).items()}
    return {}


def settle(bench: Bench, jobs: list[Job], write: Write, tally: Tally) -> None:
    """Ingests files damaged in several ways and judges every row; what has the input refused is tried by itself."""
    refused = refusals(bench, jobs, write)
    for (path, kind), error in refused.items():
        rows = [row for written in write([(path, kind)])[path] for row in written.rows]
        tally.rows_read += len(rows)
        found = "refused" if isinstance(error, DataRefused) else "crashed"
        tally.note(path, kind, found, sum(row.kind is not None for row in rows), error)
    tally.runs["refused"] += len(refused)
    left = [job for job in jobs if job not in refused]
    if not left:
        return
    damaged = write(left)
    deliver(bench, damaged)
    tally.runs["judged"] += 1
    try:
        outcome = ingest(bench.source, bench.given.as_of, bench.folder, bench.home)
    except Exception as error:
        for path, kind in left:
            tally.note(path, kind, "crashed", sum(len(written.rows) for written in damaged[path]), error)
        return
    tally.runs["over the limit"] += outcome.over_limit
    renamed = {bench.files[path].layout.names_for for path in damaged}
    for path, clean in bench.files.items():
        if path not in renamed:
            for written in damaged.get(path) or [apply(clean, {}, set())]:
                judge(tally, clean, written, bench.reference, outcome)
    if {kind for _, kind in left} == {"rows duplicated"} and outcome.staged != bench.reference.staged:
        tally.note("staging", "rows duplicated", "slipped", 1, "staged rows differ")


def damage_rows(bench: Bench, files: dict[str, Clean], tally: Tally, rng: Random) -> None:
    """All kinds of damage to single rows at once, at a random rate."""
    least, most = RATES
    rate = least * (most / least) ** rng.random()
    planned = {path: plan(clean, rate, rng) for path, clean in files.items()}

    def write(jobs: list[Job]) -> dict[str, list[Written]]:
        kinds = defaultdict(set)
        for path, kind in jobs:
            kinds[path].add(kind)
        return {path: [apply(files[path], planned[path], kinds[path])] for path in kinds}

    jobs = {(path, kind) for path in files for kind, _ in planned[path].values()}
    settle(bench, sorted(jobs, key=lambda job: job[::-1]), write, tally)


def damage_files(bench: Bench, files: dict[str, Clean], kind: str, tally: Tally, rng: Random) -> None:
    """One kind of damage to whole files, to all of them at once where that is not refused."""
    damaged = {path: FILE_KINDS[kind](clean, kind, rng) for path, clean in files.items()}
    jobs = [(path, kind) for path, written in damaged.items() if written]
    if jobs:
        settle(bench, jobs, lambda jobs: {path: damaged[path] for path, _ in jobs}, tally)


def corrupt(bench: Bench, tally: Tally, rng: Random, title: str = "") -> None:
    """One trial of one input: all kinds of damage."""
    names = {path: clean for path, clean in bench.files.items() if clean.layout.names_for}
    others = {path: clean for path, clean in bench.files.items() if path not in names}
    texts = {path: as_text(clean) for path, clean in others.items() if clean.layout.as_text}
    for kind in tqdm(["cells and lines", *FILE_KINDS], title, leave=False, disable=not title):
        for files in (others, names):
            if kind in FILE_KINDS:
                damage_files(bench, files, kind, tally, rng)
        for files in (others, names, texts):
            if kind not in FILE_KINDS and files:
                damage_rows(bench, files, tally, rng)


def damaged_rows(tally: Tally, of_files: bool) -> tuple[int, int]:
    """Rows damaged with their file, or else by themselves, and how many of them were not caught."""
    rows = {
        key: count for key, count in tally.verdicts.items() if key[0] in KINDS and (key[0] in FILE_KINDS) == of_files
    }
    return sum(rows.values()), sum(count for (_, verdict), count in rows.items() if verdict not in CAUGHT)


def by_input(tallies: dict[str, Tally]) -> str:
    """A Markdown table: what became of damaged rows and of good ones, by input."""
    lines = [
        "| input | rows read | damaged cells and lines | caught | rows of damaged files | caught | runs | refused"
        " | over the source's reject limit | good rows lost | accounting |",
        "| --- " * 11 + "|",
    ]
    for name, tally in tallies.items():
        shares = []
        for of_files in (False, True):
            damaged, missed = damaged_rows(tally, of_files)
            shares += [f"{damaged:,}", f"{1 - missed / damaged:.2%}" if damaged else ""]
        runs = [tally.runs.total() - tally.runs["over the limit"], tally.runs["refused"], tally.runs["over the limit"]]
        exact = f"wrong {tally.wrong_accounts} times" if tally.wrong_accounts else "exact"
        cells = [name, f"{tally.rows_read:,}", *shares, *map(str, runs), str(tally.good_rows_lost), exact]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_kind(tallies: dict[str, Tally]) -> str:
    """A Markdown table: what became of the rows of each kind of damage, in all inputs."""
    verdicts = sum((tally.verdicts for tally in tallies.values()), Counter())
    lines = ["| damage | rows | read as clean | deferred | excluded | quarantined | input refused | not caught |"]
    lines.append("| --- " * 8 + "|")
    for kind in KINDS:
        rows = {verdict: verdicts[kind, verdict] for verdict in VERDICTS}
        missed = sum(rows.values()) - sum(rows[verdict] for verdict in CAUGHT)
        cells = [sum(rows.values()), *(rows[verdict] for verdict in CAUGHT), missed]
        if cells[0]:
            lines.append(f"| {kind} | {' | '.join(f'{cell:,}' if cell else '' for cell in cells)} |")
    return "\n".join(lines)


def got_through(tallies: dict[str, Tally]) -> str:
    """An example of each damage that was not caught, by input and file."""
    return "\n".join(
        f"- {name}, {file}, {kind}, {verdict}: {example[:200]!r}"
        for name, tally in tallies.items()
        for (file, kind, verdict), example in tally.examples.items()
        if verdict not in CAUGHT
    )


def main() -> None:
    """Runs the trials, prints the tables, writes them down; the exit code says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--source", choices=INPUTS)
    options = parser.parse_args()
    names = [options.source] if options.source else list(INPUTS)
    data = os.environ.get("ALMANAC_DATA", "")
    if not data and names != ["shop"]:
        parser.error("set ALMANAC_DATA to the folder of data sets, or choose --source shop")
    tallies = {name: Tally() for name in names}
    for name, tally in tallies.items():
        with tempfile.TemporaryDirectory() as scratch:
            bench = prepare(name, Path(data), Path(scratch))
            for trial in range(1, options.trials + 1):
                rng = Random(f"{options.seed} {name} {trial}")
                corrupt(bench, tally, rng, f"{name}, trial {trial} of {options.trials}")
    tables = [by_input(tallies), by_kind(tallies)]
    if missed := got_through(tallies):
        tables.append(f"Not caught:\n\n{missed}")
    command = f"python -m benchmarks.corrupt --trials {options.trials} --seed {options.seed}"
    report = "\n\n".join([ABOUT.format(command=command, rows=MOST_ROWS), *tables]) + "\n"
    print(report)
    if not options.source:
        RESULTS.write_text(report)
    for tally in tallies.values():
        damaged, missed = damaged_rows(tally, of_files=False)
        if missed > 0.01 * damaged or tally.good_rows_lost or tally.wrong_accounts:
            sys.exit(1)


if __name__ == "__main__":
    main()

"""What the project was asked to cover, from five articles, and what became of it: docs/coverage.toml as a table with results.

Run: python -m benchmarks.coverage [--check | --report FILE] (tests on real data need ALMANAC_DATA). Every file, symbol and test
that is named must exist; the tests are run, or read from a JUnit report of the whole suite, and docs/coverage.md is written.
`--check` runs none and writes nothing: it compares names, and the rows of that file. Ends with 1 where something is missing
or a test has not passed.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
ROWS, TABLE = ROOT / "docs" / "coverage.toml", ROOT / "docs" / "coverage.md"
ASKED = range(1, 114)
PASSED, SKIPPED, FAILED, NOT_RUN = "passed", "skipped", "failed", "not run"
HEAD = ("row", "asked for", "code", "tests", "figures, and what is left out", "result")
Outcomes = dict[str, str]  # test with its parameters → passed, skipped or failed


@dataclass(frozen=True)
class Row:
    """Something that was asked for: where it is, what shows it; or why it is not there, or not wholly."""

    number: int
    title: str
    code: tuple[str, ...] = ()  # file or file:symbol
    tests: tuple[str, ...] = ()  # file::test, with the parameters of one or without, for all
    figure: str = ""  # with the command that measures it
    left_out: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of one source."""

    title: str
    source: str
    rows: tuple[Row, ...]


def read(path: Path = ROWS) -> list[Group]:
    """The groups of docs/coverage.toml; a key that no row has is a TypeError."""
    groups = tomllib.loads(path.read_text())["groups"]
    return [Group(**(group | {"rows": tuple(Row(**row) for row in group["rows"])})) for group in groups]


def every_row(groups: Iterable[Group]) -> list[Row]:
    """In the order of the file."""
    return [row for group in groups for row in group.rows]


def faults(groups: Iterable[Group]) -> Iterator[str]:
    """Rows that are missing or show nothing, and files, symbols and tests that do not exist. Imports and runs nothing."""
    rows = every_row(groups)
    if [row.number for row in rows] != list(ASKED):
        yield f"rows are not numbered {ASKED[0]} to {ASKED[-1]}, each once and in order"
    for row in rows:
        if not (row.left_out or (row.code and row.tests)):
            yield f"row {row.number}: needs code and tests, or a reason why it is left out"
        for place in row.code:
            file, _, symbol = place.partition(":")
            if not _exists(file, symbol):
                yield f"row {row.number}: no {place}"
        for test in row.tests:
            file, _, name = test.partition("::")
            if not (name.startswith("test_") and _exists(file, name.partition("[")[0])):
                yield f"row {row.number}: no {test}"


def _exists(file: str, symbol: str = "") -> bool:
    return (ROOT / file).is_file() and (not symbol or symbol in _symbols(file))


@cache
def _symbols(file: str) -> set[str]:
    """Names that a Python file defines at its top, and members of its classes as Class.name."""
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        found |= (mine := set(_defined(node)))
        if isinstance(node, ast.ClassDef):
            found |= {f"{name}.{member}" for name in mine for part in node.body for member in _defined(part)}
    return found


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def run(tests: Iterable[str]) -> Outcomes:
    """Runs the tests by pytest, in two processes where xdist is there."""
    spread = ["-n", "2", "--dist", "loadfile"] if find_spec("xdist") else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        pytest = [sys.executable, "-m", "pytest", "-q", "--no-header", *spread, f"--junitxml={report}", *tests]
        code = subprocess.run(pytest, cwd=ROOT, check=False).returncode
        if code not in (0, 1):
            raise SystemExit(f"pytest could not run the tests, exit code {code}")
        return outcomes(report.read_text())


def outcomes(report: str) -> Outcomes:
    """Of a JUnit report: what happened to each test of the tests' modules."""
    found: Outcomes = {}
    kinds = {"failure": FAILED, "error": FAILED, "skipped": SKIPPED}
    for case in ElementTree.fromstring(report).iter("testcase"):
        test = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        happened = {kinds[part.tag] for part in case if part.tag in kinds} or {PASSED}
        found[test] = FAILED if FAILED in {*happened, found.get(test)} else happened.pop()
    return found


def of(test: str, outcomes: Outcomes) -> list[str]:
    """What happened to a test, for each of its parameters where none are named."""
    return [kind for name, kind in outcomes.items() if name == test or name.startswith(f"{test}[")] or [NOT_RUN]


def result(row: Row, outcomes: Outcomes) -> str:
    """In a few words."""
    if not row.tests:
        return "left out"
    count = Counter(kind for test in row.tests for kind in of(test, outcomes))
    told = ", ".join(f"{count[kind]} {kind}" for kind in (FAILED, NOT_RUN, SKIPPED, PASSED) if count[kind])
    return f"{told}, partly left out" if row.left_out else told


def table(groups: list[Group], outcomes: Outcomes) -> str:
    """The text of docs/coverage.md."""
    rows = every_row(groups)
    out, part = (sum(bool(row.left_out) and bool(row.tests) is tested for row in rows) for tested in (False, True))
    lines = [
        "# What the project was asked to cover",
        "",
        f"Five articles were the start of this project, and {len(rows)} things in them were to be covered. Of these",
        f"{len(rows) - out - part} are there, {part} in part, and {out} are left out, each with the reason.",
        "",
        "Written by `python -m benchmarks.coverage` from [coverage.toml](coverage.toml): it checks that every file, symbol",
        "and test exists, runs the tests and notes how they went. A test with parameters counts once for each.",
    ]
    for group in groups:
        lines += ["", f"## {group.title}", "", f"Source: {group.source}.", "", _line(HEAD), _line(["---"] * len(HEAD))]
        lines += [_line(_cells(row, outcomes)) for row in group.rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row, outcomes: Outcomes) -> tuple[str, ...]:
    code, tests = (" <br> ".join(f"`{name}`" for name in names) for names in (row.code, row.tests))
    notes = [row.figure, f"Left out: {row.left_out}" if row.left_out else ""]
    return str(row.number), row.title, code, tests, " <br> ".join(filter(None, notes)), result(row, outcomes)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def without_results(text: str) -> list[str]:
    """The lines of the table's text, without what depends on a run."""
    return [line.rsplit(" | ", 1)[0] if line.startswith("| ") else line for line in text.splitlines()]


def main(arguments: list[str]) -> None:
    """Checks, and writes the table unless told only to check."""
    groups = read()
    found = list(faults(groups))
    if "--check" in arguments:
        if without_results(TABLE.read_text()) != without_results(table(groups, {})):
            found.append(f"{TABLE.name} has other rows than {ROWS.name}: run python -m benchmarks.coverage")
    elif not found:
        tests = dict.fromkeys(test for row in every_row(groups) for test in row.tests)
        happened = outcomes(Path(arguments[-1]).read_text()) if "--report" in arguments else run(tests)
        TABLE.write_text(table(groups, happened))
        found += [f"{test}: {kind}" for test in tests for kind in of(test, happened) if kind != PASSED]
    print("\n".join(found) or f"{len(every_row(groups))} rows, nothing missing")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])

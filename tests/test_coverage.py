"""The table of what was asked for names what is there: read by its syntax, nothing is run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.coverage import (
    ASKED,
    TABLE,
    Group,
    Row,
    every_row,
    faults,
    outcomes,
    read,
    result,
    table,
    without_results,
)

REPORT = """<testsuites><testsuite>
<testcase classname="tests.models.test_a" name="test_one[1]"/><testcase classname="tests.models.test_a" name="test_one[2]"/>
<testcase classname="tests.models.test_a" name="test_two"><skipped message="no data"/></testcase>
<testcase classname="tests.test_b" name="test_three[x[0]]"><failure>no</failure></testcase>
<testcase classname="tests.test_b" name="test_three[y]"><error>gone</error><skipped/></testcase>
</testsuite></testsuites>"""
A, B = "tests/models/test_a.py", "tests/test_b.py"


def test_all_that_was_asked_for_has_a_row_whose_files_symbols_and_tests_exist() -> None:
    assert list(faults(read())) == []
    assert [row.number for row in every_row(read())] == list(ASKED)


def test_the_document_has_the_rows_as_they_are_and_no_test_failed_when_it_was_written() -> None:
    text = TABLE.read_text()
    assert without_results(text) == without_results(table(read(), {}))
    assert not [line for line in text.splitlines() if line.endswith(" |") and " failed" in line.rsplit(" | ", 1)[1]]


@pytest.mark.parametrize(
    "change",
    [
        {"code": ("models/nowhere.py",)},
        {"code": ("models/graph.py:Nothing",)},
        {"code": ("models/graph.py:Graph.forward",)},
        {"code": ("models",)},
        {"tests": ("tests/test_coverage.py::test_that_is_not_there",)},
        {"tests": ("tests/test_coverage.py::every_row",)},
        {"tests": ("tests/test_coverage.py::test_that_is_not_there[1]",)},
        {"tests": ()},
        {"code": ()},
        {"number": 2},
    ],
)
def test_what_does_not_exist_is_told(change: dict[str, object]) -> None:
    """Symbols may be functions, classes, their members and constants."""
    places = ("models/graph.py:Graph.back", "models/graph.py:NEVER", "models/graph.py:Edges.weight", "docs/gate.md")
    mine = "tests/test_coverage.py::test_what_does_not_exist_is_told"
    rows = [Row(number, "a title", places, (mine,)) for number in ASKED]
    assert list(faults([Group("a group", "an article", tuple(rows))])) == []
    assert len(list(faults([Group("a group", "an article", (replace(rows[0], **change), *rows[1:]))]))) == 1


def test_a_test_passed_only_if_it_did_so_with_all_its_parameters() -> None:
    happened = outcomes(REPORT)
    assert happened[f"{B}::test_three[x[0]]"] == happened[f"{B}::test_three[y]"] == "failed"
    assert result(Row(1, "", tests=(f"{A}::test_one",)), happened) == "2 passed"
    assert result(Row(1, "", tests=(f"{A}::test_one[2]",)), happened) == "1 passed"
    assert result(Row(1, "", tests=(f"{A}::test_one", f"{A}::test_two")), happened) == "1 skipped, 2 passed"
    assert result(Row(1, "", tests=(f"{A}::test_one", f"{B}::test_three")), happened) == "2 failed, 2 passed"
    assert result(Row(1, "", tests=(f"{B}::test_four",), left_out="a part"), happened) == "1 not run, partly left out"
    assert result(Row(1, "", left_out="all of it"), happened) == "left out"

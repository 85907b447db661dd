"""The words of sql/text_files.sql: lines, numbered by file, and comma-separated fields, on files made by hand."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tasks.warehouse import SQL, connect


@pytest.fixture
def ask() -> Callable[[str], list[tuple]]:
    """The rows of a query in which the words are known."""

    def rows(query: str) -> list[tuple]:
        with connect() as connection:
            connection.execute((SQL / "text_files.sql").read_text())
            return connection.execute(query).fetchall()

    return rows


def test_lines_are_numbered_within_their_file_in_its_order(tmp_path: Path, ask: Callable[[str], list[tuple]]) -> None:
    sizes = {"a": 200_000, "b": 0, "c": 1, "d": 150_000}
    for name, size in sizes.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} {row}\n" for row in range(1, size + 1)))
    found = ask(
        "select source_file, count(*), max(source_row),"
        " count(*) filter (line = source_file[1] || ' ' || source_row)"
        f" from lines('{tmp_path}/*.txt', 'utf-8') group by source_file order by source_file"
    )
    assert found == [(f"{name}.txt", size, size, size) for name, size in sizes.items() if size]


def test_a_line_is_kept_as_it_is(tmp_path: Path, ask: Callable[[str], list[tuple]]) -> None:
    lines = ["", ' "a', "b\t,|'\\", "NULL", "#", "é\u2013", ""]
    for line_end in ("\n", "\r\n"):
        (tmp_path / "x.txt").write_text(line_end.join([*lines, ""]), encoding="utf-8", newline="")
        found = ask(f"select line from lines('{tmp_path}/x.txt', 'utf-8') order by source_row")
        assert [line for (line,) in found] == lines
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"caf\xe9\n"))
    assert ask(f"select line from lines('{tmp_path}/x.txt.gz', 'latin-1')") == [("café",)]


def test_the_first_line_is_the_header_in_any_case(tmp_path: Path, ask: Callable[[str], list[tuple]]) -> None:
    (tmp_path / "a.csv").write_text("userID,Name\n1,é\n", encoding="latin-1")
    read = f"select source_row, line from csv_lines('{tmp_path}/*.csv', 'userid,name', charset := 'latin-1')"
    assert ask(read) == [(2, "1,é")]
    (tmp_path / "b.csv").write_text("name,userid\né,1\n", encoding="latin-1")
    with pytest.raises(duckdb.Error, match=r"b\.csv: its first line must be 'userid,name', found 'name,userid'"):
        ask(read)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a,b,,", ["a", "b", "", ""]),
        ('1,"Matrix, The ""1999""",', ["1", 'Matrix, The "1999"', ""]),
        ('1,"open', None),
        ('1,clo"sed', None),
        ('1,"a"b', None),
    ],
)
def test_fields_of_a_line(line: str, fields: list[str] | None, ask: Callable[[str], list[tuple]]) -> None:
    assert ask(f"select csv_fields('{line}')") == [(fields,)]

"""Every fault a file can have: what it is called, where its rows went, and that nothing else changed. The faults are real."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import os
import re
import resource
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow.parquet as pq
import pytest

from tasks.errors import AlmanacError, ContractError, DataRefused, RejectLimitError, RunError
from tasks.home import check_request, claim_home
from tasks.ingest import land, load
from tasks.sources import Source, load_source
from tasks.transform import build_staging
from tasks.validate import SUITES, validate_delivery, validate_staging
from tasks.warehouse import SQL, open_warehouse

Fates = dict[str, Counter[tuple[str, str | None]]]
ROOT = SQL.parent
NOBODY = 65534
DURABLE = ("raw.interactions", "raw.items", "raw.facts", "raw.deliveries", "quarantine.rows", "mart.accounting")
LOADED, UNCHANGED, DEFERRED = ("loaded", None), ("unchanged", None), ("deferred", None)


def known_messages() -> list[re.Pattern[str]]:
    """The first column of docs/messages.md; `…` stands for anything."""
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs/messages.md").read_text(), re.MULTILINE)
    return [re.compile(".*".join(map(re.escape, row.split("…"))) + ".*", re.DOTALL) for row in rows]


def is_listed(message: str) -> bool:
    return any(pattern.fullmatch(message) for pattern in known_messages())


@dataclass(frozen=True)
class Delivery:
    """A shipped source, its files in `input` and its home."""

    name: str
    root: Path
    as_of: date
    max_reject_share: float = 0.01

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def source(self) -> Source:
        return load_source(self.name).model_copy(update={"max_reject_share": self.max_reject_share})

    @property
    def sums_lines_up(self) -> bool:
        """Whether users and items are made of many rows each, so that their rows are none of the file's."""
        return self.name == "online-retail-ii"

    def land(self) -> dict[str, int]:
        return land(self.home, self.source, self.input, self.as_of)

    def run(self) -> Fates:
        """Lands, validates and loads; the fates of every file add up to the rows that are counted in it here."""
        run_id = uuid4().hex
        self.land()
        validate_delivery(self.home, self.source, self.as_of, run_id)
        fates: Fates = {}
        for table, file, fate, rule, count in load(self.home, self.source, self.as_of, datetime.now(), run_id):
            if not self.sums_lines_up or table == "interactions":
                fates.setdefault(file, Counter())[fate, rule] += count
        assert {file: sum(counts.values()) for file, counts in fates.items()} == self.row_counts()
        return fates

    def warned(self) -> dict[str, int]:
        """Runs up to staging; returns the rows of each expectation that failed."""
        fates = self.run()
        assert fates
        build_staging(self.home, self.source, self.as_of)
        validate_staging(self.home, self.source, self.as_of, "staging")
        rows = self.rows(
            "select rule, coalesce(failed, try_cast(observed as bigint), 0) from mart.quality where not success"
        )
        assert all(map(is_listed, dict(rows)))
        return dict(rows)

    def row_counts(self) -> dict[str, int]:
        """Rows of each file that holds any, counted without the pipeline."""
        counts = {file.name: pq.read_metadata(file).num_rows for file in self.input.glob("*.parquet")}
        for file in self.input.glob("*.csv"):
            counts[file.name] = len(file.read_bytes().rstrip(b"\n").split(b"\n")) - 1
        return {file: count for file, count in counts.items() if count}

    def rows(self, query: str) -> list[tuple]:
        with open_warehouse(self.home) as warehouse:
            return warehouse.execute(query).fetchall()

    def durable(self) -> list[list[tuple]]:
        tables = "select table_schema || '.' || table_name from information_schema.tables"
        there = {name for (name,) in self.rows(tables)}
        return [self.rows(f"from {table} order by all") if table in there else [] for table in DURABLE]

    def edit(self, file: str, change: Callable[[list[str]], object]) -> None:
        """Rewrites a text file with its lines changed in place; line 0 is the header."""
        lines = (self.input / file).read_text().splitlines()
        change(lines)
        (self.input / file).write_text("\n".join(lines) + "\n")

    def refused(self, error: type[AlmanacError], *words: str) -> None:
        """The run is refused in one listed, harmless, short line with these words, and no durable table changes."""
        before = self.durable()
        with pytest.raises(error) as caught:
            self.run()
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert message.isprintable() and len(message) < 900 and "Traceback" not in message
        assert is_listed(message), message
        assert self.durable() == before


def real_delivery(name: str, root: Path, as_of: date) -> Delivery:
    delivery = Delivery(name, root, as_of)
    delivery.input.mkdir(parents=True)
    delivery.home.mkdir()
    return delivery


@pytest.fixture
def films(real_data: Path, tmp_path: Path) -> Delivery:
    """The first 300 ratings of MovieLens latest-small, the films in them and the first tags."""
    delivery = real_delivery("movielens", tmp_path, date(2018, 10, 1))
    return take_films(real_data / "ml-latest-small", delivery)


def take_films(files: Path, delivery: Delivery) -> Delivery:
    ratings = (files / "ratings.csv").read_text().splitlines()[:301]
    rated = {line.split(",")[1] for line in ratings}
    films = [
        line for line in (files / "movies.csv").read_text().splitlines() if line.split(",")[0] in rated | {"movieId"}
    ]
    tags = (files / "tags.csv").read_text().splitlines()[:31]
    for name, lines in {"ratings.csv": ratings, "movies.csv": films, "tags.csv": tags}.items():
        (delivery.input / name).write_text("\n".join(lines) + "\n")
    return delivery


@pytest.fixture
def gifts(real_data: Path, tmp_path: Path) -> Delivery:
    """The first 400 invoice lines of Online Retail II that are purchases of a known customer."""
    delivery = real_delivery("online-retail-ii", tmp_path, date(2011, 9, 1))
    lines = f"from read_parquet('{real_data}/online-retail-ii/*.parquet') where \"Customer ID\" is not null"
    lines += (
        " and invoice not like 'C%' and stockcode similar to '\\d{5}.*' and quantity > 0 order by invoicedate limit 400"
    )
    write_gifts(delivery, "lines.parquet", f"select * {lines}")
    return delivery


def write_gifts(delivery: Delivery, file: str, query: str) -> None:
    duckdb.sql(query.replace("{lines}", f"read_parquet('{delivery.input}/lines.parquet')")).write_parquet(
        str(delivery.input / file)
    )


def change_gifts(delivery: Delivery, query: str) -> None:
    """Replaces the file by the result of a query on `{lines}`."""
    write_gifts(delivery, "changed", query)
    (delivery.input / "changed").replace(delivery.input / "lines.parquet")


HEADER = "userId,movieId,rating,timestamp"
HEADERS: dict[str, Callable[[list[str]], object]] = {
    "missing column": lambda lines: lines.__setitem__(slice(None), [line.rsplit(",", 1)[0] for line in lines]),
    "swapped columns": lambda lines: lines.__setitem__(
        slice(None), [",".join(line.split(",")[i] for i in (1, 0, 2, 3)) for line in lines]
    ),
    "renamed column": lambda lines: lines.__setitem__(0, HEADER.replace("rating", "stars")),
    "wrong delimiter": lambda lines: lines.__setitem__(slice(None), [line.replace(",", ";") for line in lines]),
    "no header": lambda lines: lines.__delitem__(0),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_another_header_than_the_promised_one_is_quoted(fault: str, films: Delivery) -> None:
    films.edit("ratings.csv", HEADERS[fault])
    first = (films.input / "ratings.csv").read_text().splitlines()[0]
    assert first.lower() != HEADER.lower()
    films.refused(ContractError, "interactions.sql", "ratings.csv", f"must be '{HEADER}'", f"found '{first}'")


def test_a_missing_file_is_asked_for(films: Delivery) -> None:
    (films.input / "ratings.csv").unlink()
    films.refused(ContractError, str(films.input), "one layout", "ratings.csv")


def test_a_folder_without_matching_files_is_named(gifts: Delivery) -> None:
    (gifts.input / "lines.parquet").rename(gifts.input / "lines.parket")
    gifts.refused(ContractError, "interactions.sql", "No files found", "*.parquet", str(gifts.input))


@pytest.mark.parametrize("known", [False, True])
def test_an_empty_file_is_refused_whether_known_or_not(known: bool, films: Delivery) -> None:
    if known:
        films.run()
    (films.input / "movies.csv").write_bytes(b"")
    films.refused(ContractError, "movies.csv is empty (0 bytes)", "deliver it again or remove it")
    (films.input / "movies.csv").rename(films.input / "_movies.csv")
    shutil.copy(films.input / "tags.csv", films.input / "movies.csv")
    films.refused(ContractError, "movies.csv", "first line")  # a name set aside is not looked at


def test_a_header_alone_is_no_interaction(films: Delivery) -> None:
    films.edit("ratings.csv", lambda lines: lines.__delitem__(slice(1, None)))
    assert (films.input / "ratings.csv").read_text() == (HEADER.lower() + "\n")
    films.refused(ContractError, str(films.input), "holds no rows")


def test_a_known_file_that_holds_nothing_any_more_is_not_taken_for_a_deletion(films: Delivery) -> None:
    before = films.run()
    films.edit("movies.csv", lambda lines: lines.__delitem__(slice(1, None)))
    assert "movies.csv" in before and "movies.csv" not in films.row_counts()
    films.refused(ContractError, "movies.csv (items)", "held rows before and holds none now")
    (films.input / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Comedy\n")
    assert films.run()["movies.csv"] == {LOADED: 1}


def broken_quote(line: str) -> str:
    number, _ = line.split(",", 1)
    return f'{number},"Without end (1999),Drama'


def test_a_broken_quote_takes_its_own_line_and_no_neighbour(films: Delivery) -> None:
    films.edit("movies.csv", lambda lines: lines.__setitem__(30, broken_quote(lines[30])))
    lines = films.row_counts()["movies.csv"]
    with (films.input / "movies.csv").open() as file:
        assert len(list(csv.reader(file))) < lines, "a plain reader loses the lines that follow"
    assert films.run()["movies.csv"] == {LOADED: lines - 1, ("quarantined", "unreadable"): 1}
    assert films.rows("select source_row, raw_text like '%Without end%' from quarantine.rows") == [(31, True)]


@pytest.mark.parametrize("charset", ["latin-1", "utf-16"])
def test_another_encoding_is_named(charset: str, films: Delivery) -> None:
    films.edit("movies.csv", lambda lines: lines.append("999999,Les Misérables (1995),Drama"))
    file = films.input / "movies.csv"
    file.write_bytes(file.read_text().encode(charset))
    with pytest.raises(UnicodeDecodeError):
        file.read_bytes().decode()
    films.refused(ContractError, "items.sql", "movies.csv", "not utf-8 encoded")


LINES: dict[str, Callable[[list[str]], list[str]]] = {  # what becomes of the four fields of a rating
    "unparsable date": lambda field: [*field[:3], "yesterday"],
    "no date": lambda field: [*field[:3], ""],
    "date in the far past": lambda field: [*field[:3], "-9999999999"],
    "milliseconds for seconds": lambda field: [*field[:3], f"{field[3]}000"],
    "endless date": lambda field: [*field[:3], "9" * 40],
    "null user": lambda field: ["", *field[1:]],
    "blank user": lambda field: ["  ", *field[1:]],
    "padded item": lambda field: [field[0], f" {field[1]}", *field[2:]],
    "item of another type": lambda field: [field[0], f"{field[1]}.0", *field[2:]],
    "user of another type": lambda field: ["alice", *field[1:]],
    "no number": lambda field: [*field[:2], "good", field[3]],
    "NaN": lambda field: [*field[:2], "nan", field[3]],
    "infinite": lambda field: [*field[:2], "inf", field[3]],
    "negative": lambda field: [*field[:2], "-4.0", field[3]],
    "one field less": lambda field: field[:3],
    "one field more": lambda field: [*field, "1"],
    "control characters": lambda field: [f"\x1b[31m{field[0]}\x00", *field[1:]],
    "empty line": lambda field: [],
}


def damage(lines: list[str]) -> None:
    for position, change in enumerate(LINES.values(), 1):
        lines[10 * position] = ",".join(change(lines[10 * position].split(",")))


def test_each_damaged_line_of_a_text_file_is_quarantined_alone(films: Delivery) -> None:
    films.edit("ratings.csv", lambda lines: lines.extend(["1,3,4.0,964981247"] * 1800))  # 1 % may be broken
    films.edit("ratings.csv", damage)
    fates = films.run()["ratings.csv"]
    assert fates[LOADED] == 2100 - len(LINES)
    found = films.rows("select source_row, rule from quarantine.rows order by all")
    assert [row for row, _ in found] == [10 * position + 1 for position in range(1, len(LINES) + 1)]
    assert {rule for _, rule in found} == {"unreadable"}


def test_a_file_of_damaged_lines_is_refused_with_their_share(films: Delivery) -> None:
    films.edit("ratings.csv", damage)
    films.refused(RejectLimitError, f"{len(LINES)} of 300 new rows (6.00%)", "unreadable", "max_reject_share")


VALUES: dict[str, tuple[str, tuple[str, str | None]]] = {  # what replaces columns of an invoice line, and its fate
    "date in the far past": ("timestamp '1900-01-01' as InvoiceDate", ("quarantined", "event_date before 1980")),
    "date in the far future": ("timestamp '2262-04-11' as InvoiceDate", DEFERRED),
    "infinite date": ("timestamp 'infinity' as InvoiceDate", DEFERRED),
    "no date": ("cast(null as timestamp) as InvoiceDate", ("quarantined", "unreadable")),
    "no product": ("cast(null as varchar) as StockCode", ("quarantined", "item_id missing")),
    "no customer": ('cast(null as bigint) as "Customer ID"', ("excluded", "no customer")),
    "no quantity": ("cast(null as bigint) as Quantity", ("quarantined", "unreadable")),
    "NaN": ("cast('nan' as double) as Price", ("quarantined", "value negative or not finite")),
    "infinite": ("cast('inf' as double) as Price", ("quarantined", "value negative or not finite")),
    "negative": ("-0.01 as Price", ("quarantined", "value negative or not finite")),
    "huge": ("1e300 as Price", ("quarantined", "value negative or not finite")),
    "padded product in lower case": ("' ' || lower(StockCode) || ' ' as StockCode", LOADED),
}


def test_each_damaged_value_of_a_parquet_file_has_its_fate(gifts: Delivery) -> None:
    log = gifts.root / "log"  # prices that are no numbers are a matter of the interactions here
    shutil.copytree(gifts.source.folder, log, ignore=shutil.ignore_patterns("items.sql", "users.sql"))
    gifts = replace(gifts, name=str(log), max_reject_share=0.1)
    good = f"select * from {{lines}} offset {len(VALUES)}"
    bad = [
        f"select * replace ({replaced}) from (from {{lines}} limit 1 offset {position})"
        for position, (replaced, _) in enumerate(VALUES.values())
    ]
    change_gifts(gifts, " union all ".join(f"({query})" for query in [*bad, good]))
    expected = Counter(fate for _, fate in VALUES.values())
    expected[LOADED] += 400 - len(VALUES)
    warned = gifts.warned()
    assert gifts.run()["lines.parquet"] == {(UNCHANGED if fate == LOADED else fate): n for fate, n in expected.items()}
    assert warned["deferred rows lie more than a year ahead of all others"] == expected[DEFERRED] == 2
    [(told,)] = gifts.rows("select distinct observed from mart.quality where rule like 'deferred rows%'")
    assert told == "interactions: lines.parquet from 2262-04-11"


def test_text_where_numbers_must_be_is_quarantined(gifts: Delivery) -> None:
    gifts = replace(gifts, max_reject_share=0.1)
    change_gifts(
        gifts,
        "select * replace (if(n = 5, 'many', cast(Quantity as varchar)) as Quantity,"
        " if(n = 6, '31.12.2009', cast(InvoiceDate as varchar)) as InvoiceDate,"
        ' if(n = 7, \'13085.0\', cast("Customer ID" as varchar)) as "Customer ID")'
        " from (select *, row_number() over () as n from {lines})",
    )
    assert gifts.run()["lines.parquet"] == {
        LOADED: 398,
        ("quarantined", "unreadable"): 2,
    }
    assert not gifts.rows("select user_id from raw.interactions where contains(user_id, '.')"), "13085.0 is 13085"


def test_the_later_days_of_a_backfill_are_not_taken_for_broken_dates(real_data: Path, tmp_path: Path) -> None:
    past = real_delivery("movielens", tmp_path, date(2001, 1, 1))
    land(past.home, past.source, real_data / "ml-latest-small", past.as_of)
    told, *_ = validate_delivery(past.home, past.source, past.as_of, "run")
    assert told["rule"] == "deferred rows lie more than a year ahead of all others" and told["success"]
    [(newest,)] = past.rows("select cast(max(delivery_date) as varchar) from delivery.counts")
    assert newest > "2018-01-01"


def test_an_unknown_event_type_is_quarantined(shop_files: Path, tmp_path: Path) -> None:
    shop = real_delivery("shop", tmp_path, date(2030, 1, 1))
    good = f"from '{shop_files}/interactions*.parquet' where user_id is not null and item_id is not null"
    good += " and event_type is not null and occurred_at is not null order by event_id limit 300"
    rows = f"select * replace (if(row_number() over () = 7, 'stare', event_type) as event_type) from (select * {good})"
    for table in ("users", "items", "facts", "links"):
        duckdb.sql(f"from '{shop_files}/{table}*.parquet'").write_parquet(f"{shop.input}/{table}.parquet")
    duckdb.sql(rows).write_parquet(f"{shop.input}/interactions.parquet")
    fates = shop.run()
    assert fates["interactions.parquet"] == {LOADED: 299, ("quarantined", "event type unknown"): 1}


def test_duplicates_are_kept_counted_and_told(films: Delivery) -> None:
    films.edit("ratings.csv", lambda lines: lines.extend(lines[1:4]))
    films.edit("movies.csv", lambda lines: lines.extend([lines[1], lines[2], "1,Another Story (1995),Drama"]))
    rows = films.row_counts()
    warned = films.warned()
    assert warned["events of several rows with one natural key; each counts once"] == 3
    assert warned["rows delivered more than once"] == 2
    assert warned["rows share item_id and valid_from but differ; the last one counts"] == 3
    assert films.rows("select count(*) from staging.interactions") == [(300,)]
    assert films.rows("select count(*) from raw.interactions") == [(rows["ratings.csv"],)] == [(303,)]
    assert films.rows("select title from staging.items where item_id = '1'") == [("Another Story (1995)",)]


def test_events_of_unknown_items_are_loaded_and_told(films: Delivery) -> None:
    films.edit("movies.csv", lambda lines: lines.__delitem__(1))
    gone = sum(line.split(",")[1] == "1" for line in (films.input / "ratings.csv").read_text().splitlines())
    assert gone > 0
    warned = films.warned()
    assert warned["events whose item_id is unknown to items"] == gone
    assert "events whose user_id is unknown to users" not in warned, "the source has no users"
    assert films.rows("select count(*) from staging.interactions") == [(300,)]


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


@pytest.mark.parametrize("keep", [-50, 5], ids=["without its end", "five bytes"])
def test_a_truncated_parquet_file_is_named(keep: int, gifts: Delivery) -> None:
    shutil.copy(gifts.input / "lines.parquet", gifts.input / "second.parquet")
    cut(gifts.input / "second.parquet", keep)
    with pytest.raises(duckdb.Error):
        duckdb.sql(f"from '{gifts.input}/second.parquet'").fetchall()
    (gifts.input / "lines.parquet").rename(gifts.input / "_lines.parquet")
    gifts.refused(ContractError, "interactions.sql", "second.parquet")


def test_a_parquet_file_with_a_broken_footer_is_refused(gifts: Delivery) -> None:
    file = gifts.input / "lines.parquet"
    content = bytearray(file.read_bytes())
    content[-60:-8] = b"\xff" * 52
    file.write_bytes(content)
    with pytest.raises(duckdb.Error):
        duckdb.sql(f"from '{file}'").fetchall()
    gifts.refused(ContractError, "interactions.sql cannot read the input")


def test_a_truncated_gzip_file_is_named(films: Delivery, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(films.source.folder, source)
    for select in source.glob("latest/*.sql"):
        select.write_text(select.read_text().replace("/ratings.csv'", "/ratings.csv.gz'"))
    (source / "source.toml").write_text(
        (source / "source.toml").read_text().replace('"ratings.csv"', '"ratings.csv.gz"')
    )
    packed = films.input / "ratings.csv.gz"
    packed.write_bytes(gzip.compress((films.input / "ratings.csv").read_bytes()))
    zipped = Delivery(str(source), films.root, films.as_of)
    assert zipped.land()["interactions"] == 300
    cut(packed, packed.stat().st_size // 2)
    with pytest.raises(EOFError):
        gzip.decompress(packed.read_bytes())
    zipped.refused(ContractError, "interactions.sql", "GZIP", "ratings.csv.gz")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("* exclude (Price)", ("Price", "second.parquet")),
        ("* rename (Price as Cost)", ("Price", "second.parquet")),
        ("* replace ('many' as Quantity)", ("Could not convert string 'many'",)),
    ],
)
def test_parquet_files_of_differing_schemas_are_refused(change: str, words: tuple[str, ...], gifts: Delivery) -> None:
    gifts.run()
    write_gifts(gifts, "second.parquet", f"select {change} from {{lines}}")
    first, second = (pq.read_schema(gifts.input / f"{name}.parquet") for name in ("lines", "second"))
    assert not first.equals(second)
    gifts.refused(ContractError, ".sql", *words)


@pytest.mark.parametrize("change", ["* exclude (Price)", "* rename (Price as Cost)"], ids=["missing", "renamed"])
def test_a_column_that_a_parquet_file_lacks_is_named_with_candidates(change: str, gifts: Delivery) -> None:
    change_gifts(gifts, f"select {change} from {{lines}}")
    assert "Price" not in pq.read_schema(gifts.input / "lines.parquet").names
    gifts.refused(ContractError, "interactions.sql", '"price" not found', "Candidate bindings")


def test_parquet_columns_in_another_order_are_found_by_name(gifts: Delivery) -> None:
    gifts.run()
    change_gifts(gifts, "select Country, Price, StockCode, * exclude (Country, Price, StockCode) from {lines}")
    assert pq.read_schema(gifts.input / "lines.parquet").names[0] == "Country"
    assert gifts.run() == {"lines.parquet": {UNCHANGED: 400}}


def days(films: Delivery) -> dict[str, int]:
    query = (
        "select cast(event_date as varchar), count(*) from raw.interactions where superseded_at is null group by all"
    )
    return dict(films.rows(query))


def test_a_day_delivered_again_replaces_itself_and_a_moved_row_is_there_once(films: Delivery) -> None:
    films.run()
    before = days(films)
    first = date.fromtimestamp(964982703)
    films.edit("ratings.csv", lambda lines: lines.__setitem__(1, "1,1,0.5,964982703"))  # other stars on its day
    fates = films.run()["ratings.csv"]
    assert fates == {LOADED: before[str(first)], UNCHANGED: 300 - before[str(first)]}
    assert days(films) == before
    films.edit("ratings.csv", lambda lines: lines.__setitem__(1, f"1,1,0.5,{964982703 + 400 * 86400}"))
    films.run()
    moved = films.rows(
        "select event_date - date '2000-07-30' from raw.interactions"
        " where superseded_at is null and user_id = '1' and item_id = '1'"
    )
    assert moved == [(400,)]
    assert sum(days(films).values()) == 300


def test_a_late_file_for_an_old_day_is_added(gifts: Delivery) -> None:
    gifts.run()
    write_gifts(gifts, "late.parquet", "select * replace (Invoice || '9' as Invoice) from {lines} limit 10")
    fates = gifts.run()
    assert fates == {"lines.parquet": {UNCHANGED: 400}, "late.parquet": {LOADED: 10}}


def test_a_loop_of_folders_changes_nothing_and_a_loop_of_files_is_named(gifts: Delivery) -> None:
    (gifts.input / "again").symlink_to(gifts.input)
    assert (gifts.input / "again" / "again" / "lines.parquet").exists()
    assert gifts.run() == {"lines.parquet": {LOADED: 400}}
    (gifts.input / "self.parquet").symlink_to("self.parquet")
    with pytest.raises(OSError, match="symbolic links"):
        (gifts.input / "self.parquet").read_bytes()
    gifts.refused(ContractError, "self.parquet cannot be looked at", "symbolic links")


def test_a_linked_folder_is_looked_into(films: Delivery) -> None:
    graph = films.root / "graph"
    graph.mkdir()
    (graph / "kg.txt").touch()
    (films.input / "kg").symlink_to(graph)
    films.refused(ContractError, f"{films.input}/kg/kg.txt is empty (0 bytes)")


def test_a_file_that_no_longer_tells_of_items_has_them_superseded(gifts: Delivery) -> None:
    gifts.run()
    current = "select count(*) from raw.items where superseded_at is null"
    assert gifts.rows(current) > [(100,)]
    change_gifts(gifts, "select * replace ('nan' as Description) from {lines}")
    assert gifts.run() == {"lines.parquet": {UNCHANGED: 400}}
    assert gifts.rows(current) == [(0,)]


@pytest.mark.parametrize("file", ["ratings.csv", "movies.csv"])
def test_a_file_that_grows_while_it_is_read_is_refused(file: str, films: Delivery) -> None:
    films.run()
    path, stop = films.input / file, threading.Event()
    line, size = path.read_bytes().splitlines()[-1] + b"\n", path.stat().st_size

    def grow() -> None:
        while not stop.wait(0.005):
            with path.open("ab") as growing:
                growing.write(line)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        films.refused(ContractError, file, " → ", "bytes) changed while the input was read", "rename")
    finally:
        stop.set()
        writer.join()
    assert path.stat().st_size > size
    assert sum(films.run()[file].values()) == films.row_counts()[file]


def in_child(prepare: Callable[[], object], act: Callable[..., Any], *args: object) -> Any:
    """What `act` returns or raises in a process of its own, after `prepare`."""
    with ProcessPoolExecutor(1, get_context("fork"), prepare) as child:
        return child.submit(act, *args).result()


def write_at_most(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def write_bytes(path: Path, size: int) -> None:
    path.write_bytes(b"0" * size)


@pytest.mark.parametrize("room", [0, 1_500_000])
def test_a_full_disk_fails_with_advice_and_the_same_run_succeeds_later(room: int, films: Delivery) -> None:
    films.run()
    before = films.durable()
    films.edit(
        "ratings.csv", lambda lines: lines.extend(f"{user},1,4.0,964982703" for user in range(10**6, 10**6 + 150_000))
    )
    limit = partial(write_at_most, (films.home / "warehouse.duckdb").stat().st_size + room)
    with pytest.raises(OSError, match="too large"):
        in_child(limit, write_bytes, films.root / "large", 2 * 10**7)
    with pytest.raises(RunError) as caught:
        in_child(limit, films.run)
    message = str(caught.value)
    assert f"{films.home} cannot be written" in message and "too large" in message and "then run again" in message
    assert "GB are free" in message and message.isprintable() and is_listed(message)
    assert films.durable() == before
    assert films.run()["ratings.csv"][LOADED] >= 150_000


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def open_films(real_data: Path) -> Iterator[Delivery]:
    """The films where another user can reach them, and with a home that this user can write."""
    root = Path(tempfile.mkdtemp())
    delivery = take_films(real_data / "ml-latest-small", real_delivery("movielens", root, date(2018, 10, 1)))
    root.chmod(0o755)
    delivery.home.chmod(0o777)
    if not in_child(become_nobody, os.access, SQL / "text_files.sql", os.R_OK):
        pytest.skip("an unprivileged user cannot read this checkout")
    yield delivery
    delivery.input.chmod(0o755)
    shutil.rmtree(root)


def told_as_nobody(act: Callable[..., Any], *args: object) -> str:
    """The listed message with which `act` fails for an unprivileged user."""
    with pytest.raises(AlmanacError) as caught:
        in_child(become_nobody, act, *args)
    assert is_listed(str(caught.value)), caught.value
    return f"{type(caught.value).__name__}: {caught.value}"


def test_an_unreadable_input_is_named_and_read_once_it_can_be(open_films: Delivery) -> None:
    films, ratings = open_films, open_films.input / "ratings.csv"
    ratings.chmod(0)
    with pytest.raises(PermissionError):
        in_child(become_nobody, ratings.read_bytes)
    told = told_as_nobody(films.land)
    assert told.startswith("ContractError") and "ratings.csv" in told and "Permission denied" in told
    ratings.chmod(0o644)
    (films.input / "closed").mkdir(mode=0)
    assert "closed cannot be looked at: Permission denied" in told_as_nobody(films.land)
    (films.input / "closed").rmdir()
    films.input.chmod(0)
    told = told_as_nobody(check_request, films.home, films.source, films.input)
    assert told.startswith(f"ContractError: {films.input} cannot be read by this user")
    films.input.chmod(0o755)
    assert in_child(become_nobody, films.land)["interactions"] == 300


def test_a_home_that_cannot_be_written_is_named_and_written_once_it_can_be(open_films: Delivery) -> None:
    films = open_films
    in_child(become_nobody, films.land)
    claim = (films.home, films.source, films.input, "2GB", None)
    films.home.chmod(0o555)
    with pytest.raises(PermissionError):
        in_child(become_nobody, write_bytes, films.home / "new", 1)
    for asked in (films.home, films.home / "inner" / "home"):
        told = told_as_nobody(check_request, asked, films.source, films.input)
        assert told.startswith(f"RunError: {films.home} cannot be written by this user")
    for act in (films.land, partial(claim_home, *claim)):
        told = told_as_nobody(act)
        assert told.startswith(f"RunError: {films.home} cannot be written") and "Permission denied" in told
    films.home.chmod(0o777)
    in_child(become_nobody, claim_home, *claim)
    assert in_child(become_nobody, films.land)["interactions"] == 300


def open_at_most(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def test_too_few_open_files_are_told_before_anything_is_made(films: Delivery) -> None:
    request = films.home, films.source, films.input
    with pytest.raises(RunError, match="only 40 files can be open at once") as caught:
        in_child(partial(open_at_most, 40), check_request, *request)
    assert is_listed(str(caught.value))
    in_child(partial(open_at_most, 64), check_request, *request)


def test_a_file_cannot_put_control_characters_into_a_message(films: Delivery) -> None:
    films.edit("ratings.csv", lambda lines: lines.__setitem__(0, "\x1b]0;title\x07" + HEADER))
    films.refused(ContractError, "\N{REPLACEMENT CHARACTER}]0;title")


def template(node: ast.expr) -> str:
    """The text of a message in the code, `…` for each part that is known only later."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(template, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
    return "…"


def messages_in_code() -> Iterator[str]:
    errors = {
        name for kind in (AlmanacError, RunError, DataRefused) for name in [k.__name__ for k in kind.__subclasses__()]
    }
    for file in sorted([*(ROOT / "tasks").glob("*.py"), *(ROOT / "flows").glob("*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in errors:
                yield template(node.exc.args[0])


def test_every_message_in_the_code_is_in_the_list() -> None:
    found = [text for text in messages_in_code() if text.strip(" …:")]
    assert len(found) > 20
    assert [text for text in found if not is_listed(text)] == []


def test_every_rule_of_an_expectation_is_in_the_list() -> None:
    rules = [
        expectation["meta"]["rule"]
        for suite in SUITES.glob("*.json")
        for expectation in json.loads(suite.read_text())
        if "rule" in expectation.get("meta", {})
    ]
    assert len(rules) > 40
    assert [rule for rule in rules if not is_listed(rule)] == []

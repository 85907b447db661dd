"""What had arrived by a date can be asked for later: it is, row for row, what the run of that date saw."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.errors import ContractError, UsageError
from tasks.ingest import land, load, source_snapshot
from tasks.transform import GRAPH, STAGING, build_graph, build_staging, known_at
from tasks.warehouse import open_warehouse
from tests.tiny_source import Row, TinySource, csv_select, event, tiny_source

NOW = datetime(2026, 1, 1)
TABLES = ("interactions", "users", "items", "facts", "links")
Seen = dict[str, list[tuple]]


def day(number: int) -> date:
    return date(2024, 3, number)


def evening(number: int) -> datetime:
    """An hour before the day begins of which the run is."""
    return datetime(2024, 3, number) - timedelta(hours=1)


def user(name: str, country: str, since: str = "2024-02-01") -> Row:
    return {"user_id": name, "valid_from": since, "country": country, "age": "30"}


def item(name: str, brand: str) -> Row:
    return {"item_id": name, "valid_from": "", "valid_to": "", "brand": brand, "tags": "a|b", "price": "1", "made": ""}


def fact(subject: str, value: str) -> Row:
    return {"subject": subject, "relation": "is a", "object": value, "since": ""}


def link(name: str, other: str) -> Row:
    return {"user_id": name, "other_user_id": other, "relation": "friend", "strength": "1", "since": ""}


def on(number: int, name: str = "u1", thing: str = "i1", **changes: str) -> Row:
    return event(name, thing, f"2024-03-{number:02} 10:00:00", **changes)


# By the date of the run before which they arrive: late rows, corrected ones, rows and files that lose rows, new attributes.
DELIVERIES: dict[int, dict[str, list[Row]]] = {
    4: {
        "interactions-1.csv": [on(1), on(2), on(3, "u2", "i2"), on(3, "u3", "i3", event_type="view"), on(4)],
        "users.csv": [user("u1", "FR"), user("u2", "DE")],
        "items.csv": [item("i1", "red"), item("i2", "red")],
        "links.csv": [link("u1", "u2"), link("u2", "u3")],
    },
    5: {"interactions-2.csv": [on(2, "u4", "i4"), on(4, "u2"), on(4, "u2")], "facts.csv": [fact("i1", "toy")]},
    6: {
        "interactions-1.csv": [on(1, value="7"), on(3, "u2", "i2"), on(4, "u9")],
        "users.csv": [user("u1", "IT"), user("u2", "DE"), user("u5", "IT", "2024-03-05")],
    },
    7: {"links.csv": [link("u1", "u2")], "items.csv": [item("i1", "blue"), item("i2", "red"), item("i9", "blue")]},
    8: {"interactions-3.csv": [on(7, "u2", "i9"), on(1, "u1", "i2")], "facts.csv": [fact("i2", "toy")]},
    9: {"interactions-3.csv": [on(7, "u2", "i9")]},  # with full days the first of March is the first file's again
}


def load_at(tiny: TinySource, number: int, loaded_at: datetime) -> None:
    land(tiny.home, tiny.source, tiny.input, day(number))
    load(tiny.home, tiny.source, day(number), loaded_at, uuid4().hex)


def seen(tiny: TinySource, number: int, arrived_by: datetime | None = None, graph: bool = False) -> Seen:
    """Every row of staging, and of the graph, as of a day, and the snapshot they rest on."""
    build_staging(tiny.home, tiny.source, day(number), arrived_by)
    tables = [f"staging.{name}" for name in STAGING]
    if graph:
        build_graph(tiny.home, tiny.source, day(number))
        tables += [f"graph.{name}" for name in GRAPH]
    with open_warehouse(tiny.home) as warehouse:
        rows = {table: warehouse.execute(f"from {table} order by all").fetchall() for table in tables}
        return rows | {"snapshot": [(source_snapshot(warehouse, day(number), arrived_by),)]}


def seen_by_arrival(tiny: TinySource, number: int, graph: bool = False) -> Seen:
    return seen(tiny, number, known_at(tiny.source, day(number)), graph)


def tables(rows: Seen) -> Seen:
    """Without the snapshot, which tells units that lost all their rows from such that were never there."""
    return {table: found for table, found in rows.items() if table != "snapshot"}


def state_arrivals(tiny: TinySource, arrivals: Mapping[str, object]) -> None:
    lines = [f"{file},{arrived_at}\n" for file, arrived_at in arrivals.items()]
    (tiny.input / "arrivals.csv").write_text("file,arrived_at\n" + "".join(lines))


def replayed(root: Path, told_by: str, delivery: str) -> tuple[TinySource, dict[int, Seen]]:
    """The deliveries as they come, each loaded by the run of its day; and what each run saw."""
    tiny = tiny_source(root, settings=f'delivery = "{delivery}"', tables=TABLES)
    tiny.deliver("facts.csv", [fact("i7", "x")])
    then, arrivals = {}, {"facts.csv": evening(2)}
    for number, files in DELIVERIES.items():
        for file, rows in files.items():
            tiny.deliver(file, rows)
            arrivals[file] = evening(number)
        if told_by == "arrivals.csv":
            state_arrivals(tiny, arrivals)
        load_at(tiny, number, evening(number) if told_by == "first load" else NOW + timedelta(days=number))
        then[number] = seen(tiny, number, graph=True)
    return tiny, then


@pytest.mark.parametrize(("told_by", "delivery"), [("first load", "append"), ("arrivals.csv", "full_day")])
def test_a_past_date_by_arrival_is_what_its_run_saw(tmp_path: Path, told_by: str, delivery: str) -> None:
    tiny, then = replayed(tmp_path / "tiny", told_by, delivery)
    assert then[5] != then[6] != then[7]
    for number in DELIVERIES:
        assert seen_by_arrival(tiny, number, graph=True) == then[number], number


def test_by_event_every_date_is_what_the_last_files_hold(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=TABLES)
    for number, files in DELIVERIES.items():
        for file, rows in files.items():
            tiny.deliver(file, rows)
        if number == 4:
            tiny.deliver("facts.csv", [fact("i7", "x")])
        load_at(tiny, number, evening(number))
    then = seen_by_arrival(tiny, 5)
    fresh = tiny_source(tmp_path / "fresh", tables=TABLES)
    shutil.copytree(tiny.input, fresh.input, dirs_exist_ok=True)
    load_at(fresh, 9, NOW)
    for number in (5, 9):
        assert tables(seen(tiny, number)) == tables(seen(fresh, number))
    assert tables(seen(tiny, 5)) != tables(then)


def test_with_a_manifest_one_load_answers_for_every_date(tmp_path: Path) -> None:
    one, daily = (tiny_source(tmp_path / name, settings='delivery = "full_day"') for name in ("one", "daily"))
    files = {
        "interactions-c.csv": [on(1), on(2)],
        "interactions-a.csv": [on(2, "u2"), on(3, "u2")],  # replaces the second, though its name comes first
        "interactions-b.csv": [on(1, "u3"), on(4, "u3")],
    }
    then, arrivals = {}, {}
    for number, (file, rows) in enumerate(files.items(), start=4):
        for tiny in (one, daily):
            tiny.deliver(file, rows)
        load_at(daily, number, evening(number))
        then[number] = seen(daily, number)
        arrivals[file] = f"{evening(number).isoformat()}Z"
    state_arrivals(one, arrivals)
    load_at(one, 6, NOW)
    assert {number: seen_by_arrival(one, number) for number in then} == then
    assert seen(one, 6) == then[6]


def telling(root: Path) -> TinySource:
    """A log that says of each row when it arrived."""
    tiny = tiny_source(root)
    query = csv_select("interactions").replace("select ", "select try_cast(arrived as timestamp) as arrived_at, ", 1)
    tiny.adapt("interactions", query)
    return tiny


def arrived(number: int, row: Row) -> Row:
    return row | {"arrived": str(evening(number))}


GROWING = [
    [arrived(4, on(1)), arrived(4, on(2)), arrived(4, on(3, "u2"))],
    [arrived(5, on(2, "u3")), arrived(5, on(4, "u2"))],
    [arrived(6, on(5, "u1", "i2")), arrived(6, on(1, "u4"))],
]


def test_rows_that_say_when_they_arrived_count_from_then_on(tmp_path: Path) -> None:
    one, daily = telling(tmp_path / "one"), telling(tmp_path / "daily")
    then = {}
    for number in (4, 5, 6):
        daily.deliver("interactions.csv", [row for rows in GROWING[: number - 3] for row in rows])
        load_at(daily, number, evening(number) + timedelta(minutes=30))
        then[number] = seen(daily, number)
    one.deliver("interactions.csv", [row for rows in GROWING for row in rows])
    load_at(one, 6, NOW)
    for number, rows in then.items():
        for tiny in (one, daily):
            found = seen_by_arrival(tiny, number)
            assert {k: v for k, v in found.items() if k != "snapshot"} == {
                k: v for k, v in rows.items() if k != "snapshot"
            }
    known = [seen(one, 6, evening(number) + timedelta(minutes=1))["snapshot"] for number in (4, 5, 6)]
    assert known[0] != known[1] != known[2], "a unit known in part"


def test_a_row_corrected_in_place_keeps_its_old_content_until_the_correction_is_loaded(tmp_path: Path) -> None:
    tiny = telling(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [arrived(4, on(1)), arrived(4, on(1, "u2"))])
    load_at(tiny, 4, evening(4))
    then = seen(tiny, 4)
    tiny.deliver("interactions.csv", [arrived(3, on(1, value="9")), arrived(3, on(1, "u3"))])
    load_at(tiny, 5, evening(5))
    assert seen(tiny, 5)["staging.interactions"] != then["staging.interactions"]
    late = [row for row in seen_by_arrival(tiny, 4)["staging.interactions"] if row[0] != "u3"]
    assert late == then["staging.interactions"], "neither twice nor gone"
    assert "u3" in [row[0] for row in seen_by_arrival(tiny, 4)["staging.interactions"]], "loaded late, arrived in time"
    assert seen_by_arrival(tiny, 5)["staging.interactions"] == seen(tiny, 5)["staging.interactions"]


def test_when_a_row_arrived_is_neither_content_nor_a_feature(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "users"))
    query = csv_select("users")
    tiny.adapt("users", query.replace("select ", "select try_cast(arrived as timestamp) as arrived_at, ", 1))
    tiny.deliver("interactions.csv", [on(1)])
    tiny.deliver("users.csv", [arrived(2, user("u1", "FR"))])
    load_at(tiny, 8, NOW)
    attributes = seen(tiny, 8)["staging.attributes"]
    assert {row[2] for row in attributes} == {"country", "age"}
    tiny.deliver("users.csv", [arrived(3, user("u1", "FR"))])
    load_at(tiny, 8, NOW + timedelta(days=1))
    assert tiny.rows("select version, loaded_at from raw.deliveries where table_name = 'users'") == [(1, evening(2))]


def test_nothing_arrives_later_than_it_is_loaded_nor_earlier_than_what_it_replaces(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    versions = "select version, loaded_at, superseded_at from raw.deliveries order by version"
    tiny.deliver("interactions.csv", [on(1)])
    state_arrivals(tiny, {"interactions.csv": evening(5)})
    load_at(tiny, 4, evening(4))
    assert tiny.rows(versions) == [(1, evening(4), None)], "a time to come"
    tiny.deliver("interactions.csv", [on(1, value="3")])
    state_arrivals(tiny, {"interactions.csv": evening(2)})
    load_at(tiny, 6, evening(6))
    assert tiny.rows(versions) == [(1, evening(4), evening(6)), (2, evening(6), None)], "a line that was not renewed"
    assert tiny.rows("select loaded_at, superseded_at from raw.interactions order by all") == [
        (evening(4), evening(6)),
        (evening(6), None),
    ]


def test_a_day_begins_at_midnight_in_the_time_zone_of_the_source(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='time_zone = "Europe/Paris"')
    assert known_at(tiny.source, date(2024, 7, 1)) == datetime(2024, 6, 30, 22)
    assert known_at(tiny.source, date(2024, 1, 1)) == datetime(2023, 12, 31, 23)


def test_a_date_before_anything_arrived_names_the_first_arrival(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [on(1)])
    load_at(tiny, 8, NOW)
    with pytest.raises(
        UsageError, match=r"nothing had arrived.*2024-03-08 began.*2026-01-01 00:00 UTC.*--known-at event"
    ):
        seen_by_arrival(tiny, 8)
    assert seen(tiny, 8)["staging.interactions"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;arrived_at\n", "its columns must be file, arrived_at, found file;arrived_at"),
        ("name,when\ninteractions.csv,2024-03-01\n", "its columns must be file, arrived_at, found name, when"),
        ("file,arrived_at\ninteractions.csv,yesterday\n", "line 2: found 'interactions.csv,yesterday'"),
        ("file,arrived_at\ninteractions.csv\n", "line 2: found 'interactions.csv'"),
        ("file,arrived_at\na.csv,2024-03-01\n\na.csv,2024-03-02\n", "line 4: found 'a.csv,2024-03-02'"),
        ('file,arrived_at\n"a.csv,2024-03-01\n', "cannot be read"),
        (b"file,arrived_at\n\xff,2024-03-01\n", "cannot be read"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [on(1)])
    (tiny.input / "arrivals.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ContractError, match=r"arrivals\.csv") as refused:
        tiny.land(day(8))
    assert message in str(refused.value)


@pytest.fixture
def every_csv(tmp_path: Path) -> Callable[[Row], TinySource]:
    """A source whose SELECT reads every CSV file of the input, with a first row as given."""

    def make(row: Row) -> TinySource:
        tiny = tiny_source(tmp_path / "tiny")
        reader = csv_select("interactions").replace("/interactions*.csv'", "/*.csv', union_by_name = true")
        tiny.adapt("interactions", reader)
        tiny.deliver("interactions.csv", [row])
        return tiny

    return make


def test_data_may_be_named_like_the_manifest_but_a_manifest_is_no_data(every_csv: Callable[[Row], TinySource]) -> None:
    tiny = every_csv(on(1))
    tiny.deliver("arrivals.csv", [on(2)])
    load_at(tiny, 8, NOW)
    assert len(seen(tiny, 8)["staging.interactions"]) == 2
    state_arrivals(tiny, {"interactions.csv": evening(2)})
    with pytest.raises(ContractError, match=r"interactions\.sql reads it as data"):
        tiny.land(day(8))

"""A broken delivery is told apart from a changed source, and a source changes its meaning only under a new contract version."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.errors import ContractError
from tasks.ingest import land, load
from tasks.runs import close_killed, describe_run, mark_stale, start_run
from tasks.select_text import edits, words
from tasks.transform import build_graph, build_staging
from tasks.validate import validate_delivery
from tasks.warehouse import open_warehouse
from tests.tiny_source import Row, TinySource, csv_select, event, tiny_source

AS_OF = date(2024, 4, 1)
TODAY = datetime.now(UTC).date()
RAW = ("raw.interactions", "raw.items", "raw.deliveries", "raw.contracts", "quarantine.rows")
ANEW = ("loaded", None)


def item(name: str, brand: str = "red", **changes: str) -> Row:
    row = {"item_id": name, "valid_from": "", "valid_to": "", "brand": brand, "tags": "a|b", "price": "1", "made": ""}
    return row | changes


@pytest.fixture
def tiny(tmp_path: Path) -> TinySource:
    """A source of five interactions and two items, loaded once."""
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.deliver("interactions.csv", [event(f"u{number}", at=f"2024-03-0{number} 23:30:00") for number in range(1, 6)])
    tiny.deliver("items.csv", [item("i1"), item("i2")])
    take_in(tiny)
    return tiny


def take_in(tiny: TinySource, as_of: date = AS_OF) -> dict[str, dict[tuple[str, str | None], int]]:
    """Lands and loads, without the expectations on rows; by file the rows of each fate and rule."""
    land(tiny.home, tiny.source, tiny.input, as_of)
    fates: dict[str, dict[tuple[str, str | None], int]] = {}
    now = datetime.now(UTC).replace(tzinfo=None)
    for _, file, fate, rule, count in load(tiny.home, tiny.source, as_of, now, uuid4().hex):
        fates.setdefault(file, {})[fate, rule] = count
    return fates


def edit(tiny: TinySource, old: str, new: str, file: str = "items.sql") -> None:
    """Replaces words in a file of the source's folder."""
    path = tiny.root / "source" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def set_version(tiny: TinySource, version: int) -> None:
    """Writes `contract_version` at the head of source.toml."""
    path = tiny.root / "source" / "source.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("contract_version")]
    path.write_text("\n".join([f"contract_version = {version}", *lines]) + "\n")


def refused(tiny: TinySource) -> str:
    """The message with which the next load is refused; no durable row changed."""
    before = [tiny.rows(f"from {table} order by all") for table in RAW]
    with pytest.raises(ContractError) as caught:
        take_in(tiny)
    assert [tiny.rows(f"from {table} order by all") for table in RAW] == before
    return str(caught.value)


def notes(tiny: TinySource) -> list[tuple[str, str, int, str]]:
    """What the next validation says about the contract: table, rule, count, what was found."""
    tiny.land(AS_OF)
    results = validate_delivery(tiny.home, tiny.source, AS_OF, "notes")
    rules = ("columns that were not delivered before", "source read anew under a raised contract_version")
    keys = ("table_name", "rule", "failed", "observed")
    return [tuple(row[key] for key in keys) for row in results if row["rule"] in rules]


def test_what_each_select_gives_is_on_record_with_its_first_and_last_day(tiny: TinySource) -> None:
    recorded = tiny.rows("select distinct contract_version, table_name, select_name, first_seen_at from raw.contracts")
    assert {row[:3] for row in recorded} == {(1, "interactions", "interactions"), (1, "items", "items")}
    items = dict(tiny.rows("select column_name, column_type from raw.contracts where table_name = 'items'"))
    assert items["price"] == "DOUBLE" and items["tags"] == "VARCHAR[]" and items["valid_to"] == "DATE"
    take_in(tiny)
    again = tiny.rows("select min(first_seen_at), max(first_seen_at), min(last_seen_at) from raw.contracts")
    assert again[0][0] == again[0][1] == recorded[0][3] < again[0][2]


def test_a_delivery_without_a_column_that_used_to_come_is_called_broken_with_its_last_day(tiny: TinySource) -> None:
    tiny.deliver("items.csv", [{name: text for name, text in item("i1").items() if name != "price"}])
    told = refused(tiny)
    assert f"items.sql: column price is missing from the files and came until {TODAY}" in told
    assert "the delivery is broken, or the source has changed" in told and "raise contract_version" in told
    tiny.deliver("items.csv", [item("i1"), item("i2")])
    assert take_in(tiny)["items.csv"] == {("unchanged", None): 2}


def test_a_broken_delivery_and_a_changed_source_say_different_things(tiny: TinySource) -> None:
    edit(tiny, "try_cast(price as double) as price, ", "")
    changed = refused(tiny)
    edit(
        tiny,
        "string_split(tags, '|') as tags, ",
        "string_split(tags, '|') as tags, try_cast(price as double) as price, ",
    )
    tiny.deliver("items.csv", [{name: text for name, text in item("i1").items() if name != "price"}])
    broken = refused(tiny)
    assert "has changed since" in changed and "column price was DOUBLE, is not there" in changed
    assert "has changed since" not in broken and "missing from the files" in broken


def test_a_column_that_comes_in_another_type_under_the_same_select_is_called_broken(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.adapt(
        "items", csv_select("items").replace("all_varchar = true, ", "").replace("try_cast(price as double) as ", "")
    )
    tiny.deliver("interactions.csv", [event()])
    for price in ("2", "1"):
        tiny.deliver("items.csv", [item("i1", price=price)])
        take_in(tiny)
    tiny.deliver("items.csv", [item("i1", price="1.5")])
    assert f"column price is DOUBLE and was BIGINT until {TODAY}" in refused(tiny)


def test_a_number_that_comes_in_a_narrower_type_is_no_change(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.adapt(
        "items", csv_select("items").replace("all_varchar = true, ", "").replace("try_cast(price as double) as ", "")
    )
    tiny.deliver("interactions.csv", [event()])
    for price in ("1.5", "2", "2.5"):
        tiny.deliver("items.csv", [item("i1", price=price)])
        take_in(tiny)
    assert tiny.rows("select price from raw.items where superseded_at is null") == [(2.5,)]


def test_a_first_select_that_names_a_column_wrongly_is_not_called_broken(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.deliver("interactions.csv", [event()])
    tiny.deliver("items.csv", [{name: text for name, text in item("i1").items() if name != "price"}])
    with pytest.raises(ContractError, match=r"cannot read the input.*price") as caught:
        take_in(tiny)
    assert "came until" not in str(caught.value)


def test_comments_white_space_and_case_are_no_change(tiny: TinySource) -> None:
    edit(tiny, "select item_id,", "-- items, as the shop has them\nSELECT  /* the id */ item_id ,\n\n")
    edit(tiny, "title =", "# a comment\nhorizon_days = 3\ntitle =", file="source.toml")
    assert take_in(tiny)["items.csv"] == {("unchanged", None): 2}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("brand,", "upper(brand) as brand,", "items.sql: «, brand» became «, upper ( brand ) as brand»"),
        ("price as double) as price", "price as bigint) as price", "column price was DOUBLE, is BIGINT"),
        ("tags, '|'", "tags, ' |'", "«, '|' )» became «, ' |' )»"),
        ("brand,", "brand, brand as maker,", "column maker was not there, is VARCHAR"),
    ],
)
def test_a_select_of_another_meaning_is_refused_with_what_differs(
    old: str, new: str, named: str, tiny: TinySource
) -> None:
    edit(tiny, old, new)
    told = refused(tiny)
    assert named in told and "contract_version = 2" in told and "Undo this" in told
    edit(tiny, new, old)
    assert take_in(tiny)["items.csv"] == {("unchanged", None): 2}


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("title =", 'time_zone = "Asia/Tokyo"\ntitle =', "time_zone was UTC, is Asia/Tokyo"),
        ("view = 0.5, ", "", "event types was purchase, view, is purchase"),
        ("title =", 'natural_key = ["user_id", "item_id"]\ntitle =', "is item_id, user_id"),
    ],
)
def test_settings_that_give_rows_their_meaning_change_only_with_the_version(
    old: str, new: str, named: str, tiny: TinySource
) -> None:
    edit(tiny, old, new, file="source.toml")
    assert named in refused(tiny)
    set_version(tiny, 2)
    assert take_in(tiny)["interactions.csv"] == {ANEW: 5}


def test_a_weight_is_no_change_of_meaning(tiny: TinySource) -> None:
    edit(tiny, "purchase = 2.0", "purchase = 3.0", file="source.toml")
    assert take_in(tiny)["interactions.csv"] == {("unchanged", None): 5}


def test_a_raised_version_reads_all_rows_anew_once_and_accounts_for_each(tiny: TinySource) -> None:
    edit(tiny, "brand,", "upper(brand) as brand,")
    set_version(tiny, 2)
    assert take_in(tiny) == {"interactions.csv": {ANEW: 5}, "items.csv": {ANEW: 2}}
    assert tiny.rows("select item_id, brand from raw.items where superseded_at is null order by all") == [
        ("i1", "RED"),
        ("i2", "RED"),
    ]
    assert tiny.rows("select count(*) from raw.interactions where superseded_at is null") == [(5,)]
    assert take_in(tiny) == {"interactions.csv": {("unchanged", None): 5}, "items.csv": {("unchanged", None): 2}}
    assert tiny.rows("select distinct contract_version from raw.contracts order by all") == [(1,), (2,)]


def test_days_behind_the_look_back_are_read_anew_too_even_after_a_run_for_an_earlier_date(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="look_back_days = 1")
    tiny.deliver("interactions.csv", [event(at=f"2024-03-{day:02} 10:00:00") for day in range(1, 21)])
    take_in(tiny)
    edit(tiny, "try_cast(value as double)", "2 * try_cast(value as double)", file="interactions.sql")
    set_version(tiny, 2)
    assert take_in(tiny, date(2024, 3, 6))["interactions.csv"] == {ANEW: 5, ("deferred", None): 15}
    assert take_in(tiny)["interactions.csv"] == {("unchanged", None): 5, ANEW: 15}
    assert tiny.rows("select distinct value from raw.interactions where superseded_at is null") == [(2.0,)]
    assert take_in(tiny)["interactions.csv"] == {("unchanged", None): 20}


def test_rows_that_move_to_another_day_under_a_new_contract_are_there_once(tiny: TinySource) -> None:
    edit(
        tiny,
        "try_cast(occurred_at as date)",
        "cast(try_cast(occurred_at as timestamp) + interval 9 hours as date)",
        "interactions.sql",
    )
    edit(tiny, "title =", 'time_zone = "Asia/Tokyo"\ntitle =', "source.toml")
    set_version(tiny, 2)
    assert take_in(tiny)["interactions.csv"] == {ANEW: 5}
    days = tiny.rows("select event_date from raw.interactions where superseded_at is null order by all")
    assert days == [(date(2024, 3, day),) for day in range(2, 7)]


def test_published_dates_that_rest_on_rows_of_the_old_contract_become_stale(tiny: TinySource) -> None:
    now, source = datetime.now(UTC).replace(tzinfo=None), tiny.source
    close_killed(tiny.home, now)
    for as_of in (date(2024, 3, 2), AS_OF):
        build_staging(tiny.home, source, as_of)
        build_graph(tiny.home, source, as_of)
        run_id = uuid4().hex
        start_run(tiny.home, source, tiny.input, as_of, run_id, now, {})
        describe_run(tiny.home, as_of, run_id)
        with open_warehouse(tiny.home) as warehouse:
            warehouse.execute("update mart.runs set status = 'published', published_at = $at", {"at": now})
    assert mark_stale(tiny.home, now) == []
    edit(tiny, "brand,", "upper(brand) as brand,")
    set_version(tiny, 2)
    take_in(tiny)
    assert mark_stale(tiny.home, now) == [date(2024, 3, 2), AS_OF]


def test_a_lower_version_than_the_one_on_record_is_refused(tiny: TinySource) -> None:
    set_version(tiny, 3)
    take_in(tiny)
    set_version(tiny, 2)
    told = refused(tiny)
    assert "contract_version is 2" in told and "loaded under 3" in told


def test_new_columns_pass_with_a_note(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", tables=("interactions", "items"))
    tiny.adapt("items", csv_select("items").replace("brand, ", "columns('brand|colour'), "))
    tiny.deliver("interactions.csv", [event()])
    tiny.deliver("items.csv", [item("i1")])
    take_in(tiny)
    assert notes(tiny) == []
    tiny.deliver("items.csv", [item("i1", colour="blue")])
    assert notes(tiny) == [("delivery.new_items", "columns that were not delivered before", 1, "colour")]
    assert take_in(tiny)["items.csv"] == {ANEW: 1}
    assert tiny.rows("select colour from raw.items where superseded_at is null") == [("blue",)]
    tiny.deliver("items.csv", [item("i1")])
    assert "column colour is missing" in refused(tiny)


def test_a_select_may_be_added_but_not_taken_away(tiny: TinySource) -> None:
    tiny.adapt("links", csv_select("links"))
    tiny.deliver(
        "links.csv", [{"user_id": "u1", "other_user_id": "u2", "relation": "friend", "strength": "1", "since": ""}]
    )
    assert take_in(tiny)["links.csv"] == {ANEW: 1}
    (tiny.root / "source" / "links.sql").unlink()
    assert "links.sql is gone" in refused(tiny)
    set_version(tiny, 2)
    take_in(tiny)
    assert tiny.rows("select count(*), count(superseded_at) from raw.links") == [(1, 1)]
    assert tiny.rows("select count(*) from raw.deliveries where table_name = 'links' and superseded_at is null") == [
        (0,)
    ]
    assert tiny.rows("select count(*) from raw.items where superseded_at is null") == [(2,)]


def test_rows_of_files_that_are_gone_stay_and_are_told_of_when_the_version_is_raised(tiny: TinySource) -> None:
    tiny.deliver("interactions-2.csv", [event("u9")])
    (tiny.input / "interactions.csv").unlink()
    set_version(tiny, 2)
    ((_, _, rows, found),) = notes(tiny)
    assert rows == 5 and found == "contract 1 → 2; 5 rows of 1 files that are gone stay as they were read"
    take_in(tiny)
    assert notes(tiny) == []
    assert tiny.rows("select count(*) from raw.interactions where superseded_at is null") == [(6,)]


@pytest.mark.parametrize("text", ["select 'a--b', \"x  y\", e'it\\'s' -- end", "select $q$ -- no comment $q$ /* c */"])
def test_quoted_text_is_never_taken_for_a_comment(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sql"
    path.write_text(text)
    text = words(path)
    path.write_text(text)
    assert words(path) == text and ("a--b" in text or "-- no comment" in text)
    path.write_text(text.replace("a--b", "a--c").replace("no comment", "none"))
    assert words(path) != text and edits(text, words(path)).count("became") == 1

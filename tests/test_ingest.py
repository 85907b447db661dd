"""Every row read is accounted for; a delivery replaces exactly what it delivers anew; a refused one changes nothing."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import ContractError, RejectLimitError, UsageError
from tasks.sources import load_source
from tests.tiny_source import Row, TinySource, csv_select, event, tiny_source

AS_OF = date(2024, 4, 1)
FUTURE = "2024-04-01 00:00:00"  # the first moment a run for AS_OF must not see
CURRENT = (
    "select source_file, event_date, user_id, item_id from raw.interactions where superseded_at is null order by all"
)
DURABLE = ("raw.interactions", "raw.deliveries", "quarantine.rows")
BLANK = "blank, padded or with control characters"
KINDS: dict[str, tuple[Row, tuple[str, str | None]]] = {
    "good": (event(), ("loaded", None)),
    "good without a value": (event(value=""), ("loaded", None)),
    "good on the last day": (event(at="2024-03-31 23:59:59"), ("loaded", None)),
    "without user": (event(user=""), ("quarantined", "user_id missing")),
    "without item": (event(item=""), ("quarantined", "item_id missing")),
    "blank user": (event(user="  "), ("quarantined", f"user_id {BLANK}")),
    "padded item": (event(item=" i1"), ("quarantined", f"item_id {BLANK}")),
    "tab in the user": (event(user="u\t1"), ("quarantined", f"user_id {BLANK}")),
    "endless item": (event(item="i" * 257), ("quarantined", "item_id longer than 256 characters")),
    "unreadable date": (event(at="yesterday"), ("quarantined", "date unreadable")),
    "ancient": (event(at="1979-12-31"), ("quarantined", "event_date before 1980")),
    "without type": (event(event_type=""), ("quarantined", "event type missing")),
    "unknown type": (event(event_type="zap"), ("quarantined", "event type unknown")),
    "negative value": (event(value="-0.01"), ("quarantined", "value negative or not finite")),
    "no number": (event(value="nan"), ("quarantined", "value negative or not finite")),
    "infinite value": (event(value="inf"), ("quarantined", "value negative or not finite")),
    "excluded": (event(excluded="test order"), ("excluded", "test order")),
    "excluded, else broken": (event(user="", value="-1", excluded="test order"), ("excluded", "test order")),
    "excluded without a date": (event(at="?", excluded="test order"), ("quarantined", "date unreadable")),
    "future": (event(at=FUTURE), ("deferred", None)),
    "future, excluded": (event(at=FUTURE, excluded="test order"), ("deferred", None)),
    "future, broken": (event(user="", item=" ", at="2030-01-01", event_type="zap", value="nan"), ("deferred", None)),
}


def current(tiny: TinySource) -> list[tuple]:
    return tiny.rows(CURRENT)


def durable(tiny: TinySource) -> list[list[tuple]]:
    return [tiny.rows(f"from {table} order by all") for table in DURABLE]


def days(*numbers: int, user: str = "u1") -> list[Row]:
    """One event on each of these days of March."""
    return [event(user=user, at=f"2024-03-{number:02} 10:00:00") for number in numbers]


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=40), split=st.integers(0, 40))
def test_every_row_has_the_fate_its_content_deserves(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], split: int
) -> None:
    tiny = tiny_source(tmp_path_factory.mktemp("fates") / "tiny")
    files = {name: part for name, part in (("a", kinds[:split]), ("b", kinds[split:])) if part}
    for name, part in files.items():
        tiny.deliver(f"interactions-{name}.csv", [KINDS[kind][0] for kind in part])
    fates = tiny.ingest(AS_OF)
    assert fates == {
        f"interactions-{name}.csv": Counter(KINDS[kind][1] for kind in part) for name, part in files.items()
    }
    in_raw = sum(KINDS[kind][1][0] in ("loaded", "excluded") for kind in kinds)
    assert tiny.rows("select count(*) from raw.interactions") == [(in_raw,)]
    rejected = tiny.rows("select source_file, source_row, rule from quarantine.rows order by all")
    assert rejected == [
        (f"interactions-{name}.csv", row, KINDS[kind][1][1])
        for name, part in files.items()
        for row, kind in enumerate(part)
        if KINDS[kind][1][0] == "quarantined"
    ]


def test_rows_dated_on_or_after_as_of_are_cut_before_any_rule(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="max_reject_share = 0.0")
    future = [row for kind, (row, _) in KINDS.items() if kind.startswith("future")]
    tiny.deliver("interactions.csv", [event(), *future])
    assert tiny.ingest(AS_OF) == {"interactions.csv": {("loaded", None): 1, ("deferred", None): len(future)}}
    assert not tiny.rows("from quarantine.rows")
    assert tiny.rows("select distinct checked from mart.quality where table_name = 'delivery.new_interactions'") == [
        (1,)
    ]
    with pytest.raises(RejectLimitError):  # once their day has come they are as broken as others
        tiny.ingest(date(2031, 1, 1))


def test_deferred_rows_are_loaded_when_their_day_has_come(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event(), event(at=FUTURE)])
    tiny.ingest(AS_OF)
    assert tiny.ingest(date(2024, 4, 2)) == {"interactions.csv": {("unchanged", None): 1, ("loaded", None): 1}}
    assert tiny.ingest(AS_OF) == {"interactions.csv": {("unchanged", None): 1, ("deferred", None): 1}}
    assert len(current(tiny)) == 2


def test_ingesting_twice_equals_once(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [row for row, _ in KINDS.values()])
    first = tiny.ingest(AS_OF)["interactions.csv"]
    assert first == Counter(fate for _, fate in KINDS.values())
    before = durable(tiny)
    second = tiny.ingest(AS_OF)["interactions.csv"]
    assert durable(tiny) == before
    assert second == {("unchanged" if fate == "loaded" else fate, rule): n for (fate, rule), n in first.items()}


def test_rows_in_another_order_are_the_same_delivery(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    rows = [event(user=f"u{number}") for number in range(5)]
    tiny.deliver("interactions.csv", rows)
    tiny.ingest(AS_OF)
    before = durable(tiny)
    tiny.deliver("interactions.csv", rows[::-1])
    assert tiny.ingest(AS_OF) == {"interactions.csv": {("unchanged", None): 5}}
    assert durable(tiny) == before


def test_a_changed_day_replaces_that_day_of_that_file_only(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions-a.csv", [*days(1, 2), event(user="", at="2024-03-02")])
    tiny.deliver("interactions-b.csv", days(1, 2, user="u2"))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-a.csv", [*days(1), *days(2, user="u3")])
    fates = tiny.ingest(AS_OF)
    assert fates["interactions-a.csv"] == {("unchanged", None): 1, ("loaded", None): 1}
    assert fates["interactions-b.csv"] == {("unchanged", None): 2}
    first, second = date(2024, 3, 1), date(2024, 3, 2)
    assert current(tiny) == [
        ("interactions-a.csv", first, "u1", "i1"),
        ("interactions-a.csv", second, "u3", "i1"),
        ("interactions-b.csv", first, "u2", "i1"),
        ("interactions-b.csv", second, "u2", "i1"),
    ]
    superseded = "select source_file, event_date, user_id from raw.interactions where superseded_at is not null"
    assert tiny.rows(superseded) == [("interactions-a.csv", second, "u1")]
    assert tiny.rows("select superseded_at is null from quarantine.rows") == [(False,)]


def test_a_row_that_moves_to_another_day_is_there_once(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    for day in (1, 2):
        tiny.deliver("interactions.csv", [event(user="u2"), *days(day)])
        tiny.ingest(AS_OF)
        moved = [moment.day for _, moment, user, _ in current(tiny) if user == "u1"]
        assert moved == [day]


def test_identical_rows_stay_apart_in_raw(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", days(1, 1, 1))
    tiny.ingest(AS_OF)
    assert len(current(tiny)) == 3
    tiny.deliver("interactions.csv", days(1, 1))
    tiny.ingest(AS_OF)
    assert len(current(tiny)) == 2


def test_another_file_adds_rows_to_the_same_day(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions-a.csv", days(1))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-b.csv", days(1))
    assert tiny.ingest(AS_OF)["interactions-b.csv"] == {("loaded", None): 1}
    assert [file for file, *_ in current(tiny)] == ["interactions-a.csv", "interactions-b.csv"]


def test_with_full_days_a_new_file_replaces_the_day_and_the_old_file_does_not_win_it_back(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-a.csv", [*days(1, 1), *days(2)])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-b.csv", days(1, user="u2"))
    expected = [
        ("interactions-a.csv", date(2024, 3, 2), "u1", "i1"),
        ("interactions-b.csv", date(2024, 3, 1), "u2", "i1"),
    ]
    for _ in range(2):
        fates = tiny.ingest(AS_OF)
        assert current(tiny) == expected
    assert {fate for of_file in fates.values() for fate, _ in of_file} == {"unchanged"}


def test_with_full_days_delivered_together_the_last_file_by_name_wins(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-a.csv", days(1))
    tiny.deliver("interactions-b.csv", days(1, user="u2"))
    for _ in range(2):
        tiny.ingest(AS_OF)
        assert current(tiny) == [("interactions-b.csv", date(2024, 3, 1), "u2", "i1")]


def test_with_full_days_a_day_that_vanishes_from_the_replaced_file_leaves_the_newer_one_alone(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-a.csv", days(1, 2))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-b.csv", days(1, user="u2"))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-a.csv", days(2))
    tiny.ingest(AS_OF)
    assert ("interactions-b.csv", date(2024, 3, 1), "u2", "i1") in current(tiny)
    assert len(current(tiny)) == 2


def test_with_full_days_the_older_file_has_its_day_back_once_no_other_file_holds_it(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-a.csv", days(1))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-b.csv", days(1, 2, user="u2"))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-b.csv", days(2, user="u2"))
    for _ in range(2):
        tiny.ingest(AS_OF)
        assert current(tiny) == [
            ("interactions-a.csv", date(2024, 3, 1), "u1", "i1"),
            ("interactions-b.csv", date(2024, 3, 2), "u2", "i1"),
        ]


def test_a_day_that_vanishes_from_its_file_is_superseded_and_may_come_back(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", days(1, 2))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions.csv", days(2))
    for _ in range(2):
        assert tiny.ingest(AS_OF) == {"interactions.csv": {("unchanged", None): 1}}
        assert [day for _, day, *_ in current(tiny)] == [date(2024, 3, 2)]
    tiny.deliver("interactions.csv", days(1, 2))
    assert tiny.ingest(AS_OF) == {"interactions.csv": {("unchanged", None): 1, ("loaded", None): 1}}
    assert [day for _, day, *_ in current(tiny)] == [date(2024, 3, 1), date(2024, 3, 2)]


def test_a_file_that_is_no_longer_there_keeps_its_rows(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions-a.csv", days(1))
    tiny.ingest(AS_OF)
    (tiny.input / "interactions-a.csv").unlink()
    tiny.deliver("interactions-b.csv", days(2))
    tiny.ingest(AS_OF)
    assert [file for file, *_ in current(tiny)] == ["interactions-a.csv", "interactions-b.csv"]


def test_beyond_the_look_back_a_day_is_loaded_anew_only_when_its_row_count_changed(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="look_back_days = 3")
    tiny.deliver("interactions.csv", days(1, 5, 6, 7, 8, 9, 10))
    tiny.ingest(AS_OF)
    tiny.deliver("interactions.csv", [*days(1, 2, 6), *days(5, 5, 7, user="new"), *days(8, 9, user="new"), *days(10)])
    fates = tiny.ingest(AS_OF)["interactions.csv"]
    assert sum(fates.values()) == 9
    users = {(day.day, user) for _, day, user, _ in current(tiny)}
    assert {user for day, user in users if day == 2} == {"u1"}, "a day that was not there is new"
    assert {user for day, user in users if day == 5} == {"new"}, "another row count"
    assert {user for day, user in users if day == 7} == {"new"}, "inside the look-back"
    assert {user for day, user in users if day in (8, 9)} == {"new"}
    assert fates == {("loaded", None): 6, ("unchanged", None): 3}
    tiny.deliver("interactions.csv", [*days(1, 2, user="late"), *days(5, 5, 6, 7, 8, 9, 10, user="new")])
    tiny.ingest(AS_OF)
    users = {(day.day, user) for _, day, user, _ in current(tiny)}
    assert {(1, "u1"), (2, "u1"), (6, "u1"), (10, "new")} <= users, "old days of equal count are not looked at"


def test_a_parquet_source_is_known_again_by_content(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", days(1, 2))
    duckdb.sql(f"from read_csv('{tiny.input}/interactions.csv', all_varchar = true)").write_parquet(
        f"{tiny.input}/log.parquet"
    )
    query = csv_select("interactions")
    reader = "read_parquet(getvariable('input') || '/*.parquet', filename = true)"
    tiny.adapt("interactions", query[: query.index("read_csv")] + reader)
    assert tiny.ingest(AS_OF) == {"log.parquet": {("loaded", None): 2}}
    assert tiny.ingest(AS_OF) == {"log.parquet": {("unchanged", None): 2}}


def test_too_many_broken_rows_refuse_the_delivery_and_change_nothing(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="max_reject_share = 0.2")
    tiny.deliver("interactions.csv", days(1, 2, 3))
    tiny.ingest(AS_OF)
    tables = (*DURABLE, "mart.accounting")
    before = [tiny.rows(f"from {table} order by all") for table in tables]
    tiny.deliver("interactions.csv", [*days(1, 2), event(user=""), event(item=" ")])
    with pytest.raises(
        RejectLimitError, match=r"2 of 3 new rows \(66\.67%\).*20\.00%.*user_id missing.*max_reject_share"
    ):
        tiny.ingest(AS_OF)
    assert [tiny.rows(f"from {table} order by all") for table in tables] == before
    tiny.deliver("interactions.csv", [*days(1, 1, 2, 2), event(user="")])
    assert tiny.ingest(AS_OF)["interactions.csv"]["quarantined", "user_id missing"] == 1, (
        "a share at the limit is allowed"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    with pytest.raises(ContractError, match=r"interactions\.sql.*interactions\*\.csv"):
        tiny.ingest(AS_OF)


def test_a_missing_column_of_the_file_is_named(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [{name: text for name, text in event().items() if name != "event_type"}])
    with pytest.raises(ContractError, match=r"interactions\.sql.*event_type"):
        tiny.ingest(AS_OF)


def test_a_column_of_another_type_or_left_out_is_named(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    query = csv_select("interactions")
    tiny.adapt("interactions", query.replace("try_cast(value as double) as value", "value"))
    with pytest.raises(ContractError, match=r"interactions\.sql: column value must be DOUBLE, found VARCHAR"):
        tiny.ingest(AS_OF)
    tiny.adapt("interactions", query.replace("cast(line as bigint) as source_row", "line"))
    with pytest.raises(ContractError, match=r"interactions\.sql: column source_row must be BIGINT, found nothing"):
        tiny.ingest(AS_OF)


def test_an_adapter_may_end_with_a_comment_or_a_semicolon(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    for end in ("-- raw_text is not among the columns", ";", "/* done */"):
        tiny.adapt("interactions", csv_select("interactions").rstrip() + f" {end}\n")
        assert sum(tiny.ingest(AS_OF)["interactions.csv"].values()) == 1


@pytest.mark.parametrize(
    "path",
    ["{root}/elsewhere/secret.txt", "{root}/input/../elsewhere/secret.txt", "/etc/passwd", "{root}/home/secret.txt"],
)
def test_an_adapter_reads_the_input_and_nothing_else(path: str, tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    (tiny.root / "elsewhere").mkdir()
    for folder in ("input", "home", "elsewhere"):
        (tiny.root / folder / "secret.txt").write_text("words")

    def reading(file: str) -> str:
        content = f"(select content from read_text('{file}'))"
        return csv_select("interactions").replace("nullif(excluded, '')", content)

    tiny.adapt("interactions", reading(path.format(root=tiny.root)))
    with pytest.raises(ContractError, match="cannot read the input"):
        tiny.ingest(AS_OF)
    tiny.adapt("interactions", reading(f"{tiny.root}/input/secret.txt"))
    assert tiny.ingest(AS_OF)["interactions.csv"] == {("excluded", "words"): 1}


@pytest.mark.parametrize(
    "text",
    [
        "copy (select 1) to 'stolen.csv'",
        "insert into raw.interactions (user_id) values ('u1')",
        "{select}; select 1",
        "{select}; drop table raw.interactions",
        "attach 'other.duckdb'",
        "set threads = 1",
        "selekt 1",
        "",
    ],
)
def test_an_adapter_is_one_select(text: str, tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    tiny.adapt("interactions", text.format(select=csv_select("interactions").strip()))
    with pytest.raises(ContractError, match=r"interactions\.sql"):
        tiny.ingest(AS_OF)
    assert tiny.rows("select count(*) from raw.interactions") == [(0,)]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("look_back = 3", "look_back"),
        ('time_zone = "Mars/Olympus"', "time_zone"),
        ('natural_key = ["user_id"]', "natural_key"),
        ('delivery = "sometimes"', "delivery"),
        ("title = ", "source.toml"),
        ("event_strength = {}", "event_strength"),
        ("event_strength = { view = 0.0 }", "event_strength"),
        ("event_strength = { view = -1.0 }", "event_strength"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting: str, named: str, tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings=setting)
    with pytest.raises(UsageError, match=named):
        _ = tiny.source


def test_a_folder_that_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"online-retail-ii.*shop"):
        load_source(str(tmp_path))
    tiny = tiny_source(tmp_path / "tiny", tables=())
    with pytest.raises(UsageError, match=r"no interactions\.sql"):
        _ = tiny.source


def test_a_replaced_day_comes_back_when_its_replacement_takes_the_day_out(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-1.csv", [event("old")])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-2.csv", [event("new"), event("new", at="2024-03-02 10:00:00")])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-2.csv", [event("new", at="2024-03-02 10:00:00")])
    for _ in range(2):
        tiny.ingest(AS_OF)
        current = "select user_id, event_date from raw.interactions where superseded_at is null order by event_date"
        assert tiny.rows(current) == [("old", date(2024, 3, 1)), ("new", date(2024, 3, 2))]


def test_a_long_good_history_does_not_excuse_a_broken_delivery(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="max_reject_share = 0.01")
    tiny.deliver("interactions-1.csv", [event(f"u{number}") for number in range(500)])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-2.csv", [event(user="")] * 4)
    with pytest.raises(RejectLimitError, match="4 of 4 new rows"):
        tiny.ingest(AS_OF)


def test_a_truncated_parquet_file_and_differing_schemas_are_refused(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny")
    tiny.deliver("interactions.csv", [event()])
    read = "read_parquet(getvariable('input') || '/*.parquet', filename = true)"
    query = csv_select("interactions")
    tiny.adapt("interactions", query[: query.index("read_csv")] + read)
    log = duckdb.sql(f"from read_csv('{tiny.input}/interactions.csv', all_varchar = true)")
    log.write_parquet(f"{tiny.input}/a.parquet")
    tiny.ingest(AS_OF)
    (tiny.input / "b.parquet").write_bytes((tiny.input / "a.parquet").read_bytes()[:-50])
    with pytest.raises(ContractError, match="cannot read the input"):
        tiny.land(AS_OF)
    (tiny.input / "b.parquet").unlink()
    duckdb.sql(f"select * exclude (item_id) from read_parquet('{tiny.input}/a.parquet')").write_parquet(
        f"{tiny.input}/b.parquet"
    )
    with pytest.raises(ContractError, match="item_id"):
        tiny.land(AS_OF)

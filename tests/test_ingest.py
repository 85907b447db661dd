"""Intake: every row read has one fate, and delivering twice is delivering once."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import ContractError, RejectLimitError, UsageError
from tasks.sources import load_source
from tests.tiny_source import Row, TinySource, event, tiny_source

AS_OF = date(2024, 3, 10)
LOADED, UNCHANGED, DEFERRED = ("loaded", None), ("unchanged", None), ("deferred", None)
BLANK = "blank, padded or with control characters"

# What a row may look like, and the fate it must meet.
KINDS: dict[tuple[str, str | None], Row] = {
    LOADED: event(),
    DEFERRED: event(at="2024-03-10 00:00:00"),
    ("excluded", "returned"): event(user="", excluded="returned"),
    ("quarantined", "user_id missing"): event(user=""),
    ("quarantined", f"item_id {BLANK}"): event(item=" i1"),
    ("quarantined", "date unreadable"): event(at="yesterday"),
    ("quarantined", "event_date before 1980"): event(at="1907-03-01 10:00:00"),
    ("quarantined", "event type unknown"): event(event_type="stare"),
    ("quarantined", "value negative or not finite"): event(value="nan"),
}
BROKEN_LATER = event(user="", item="", at="2024-04-01 00:00:00", event_type="stare", value="-inf")


@pytest.fixture
def tiny(tmp_path: Path) -> TinySource:
    return tiny_source(tmp_path / "tiny")


def current(tiny: TinySource) -> Counter[tuple[str, str, str]]:
    """Users, items and dates of the raw rows in force."""
    query = "select user_id, item_id, event_date::varchar from raw.interactions where superseded_at is null"
    return Counter(tiny.rows(query))  # pyright: ignore[reportArgumentType]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=30))
def test_every_row_meets_its_fate_and_the_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory, fates: list[tuple[str, str | None]]
) -> None:
    tiny = tiny_source(tmp_path_factory.mktemp("fates") / "tiny")
    tiny.deliver("interactions.csv", [KINDS[fate] for fate in fates])
    assert tiny.ingest(AS_OF)["interactions.csv"] == Counter(fates)
    rejected = tiny.rows("select rule, count(*) from quarantine.rows group by rule")
    assert dict(rejected) == Counter(rule for fate, rule in fates if fate == "quarantined")


def test_the_future_is_deferred_before_any_other_rule(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="max_reject_share = 0.0")
    tiny.deliver("interactions.csv", [event(), *[BROKEN_LATER] * 50])
    assert tiny.ingest(AS_OF)["interactions.csv"] == {LOADED: 1, DEFERRED: 50}
    assert not tiny.rows("from quarantine.rows")


def test_delivering_the_same_file_again_changes_nothing(tiny: TinySource) -> None:
    tiny.deliver("interactions.csv", list(KINDS.values()))
    first = tiny.ingest(AS_OF)["interactions.csv"]
    tables = ("raw.interactions", "quarantine.rows", "raw.deliveries")
    before = [tiny.rows(f"from {table}") for table in tables]
    second = tiny.ingest(AS_OF, "again")["interactions.csv"]
    assert second == {UNCHANGED if fate == LOADED else fate: count for fate, count in first.items()}
    assert [tiny.rows(f"from {table}") for table in tables] == before


def test_rows_deferred_by_one_run_are_loaded_by_a_later_one(tiny: TinySource) -> None:
    tiny.deliver("interactions.csv", [event(), event(at="2024-03-20 08:00:00")])
    assert tiny.ingest(AS_OF)["interactions.csv"] == {LOADED: 1, DEFERRED: 1}
    assert tiny.ingest(date(2024, 4, 1), "later")["interactions.csv"] == {LOADED: 1, UNCHANGED: 1}
    assert tiny.ingest(AS_OF, "back")["interactions.csv"] == {UNCHANGED: 1, DEFERRED: 1}
    assert len(current(tiny)) == 2


def test_a_corrected_day_replaces_only_its_own_rows(tiny: TinySource) -> None:
    tiny.deliver("interactions.csv", [event(), event(item="i2"), event(at="2024-03-02 09:00:00")])
    tiny.deliver("interactions-b.csv", [event(item="other file")])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions.csv", [event(item="i3"), event(item="i2"), event(at="2024-03-02 09:00:00")])
    fates = tiny.ingest(AS_OF, "corrected")
    assert fates["interactions.csv"] == {LOADED: 2, UNCHANGED: 1}
    assert fates["interactions-b.csv"] == {UNCHANGED: 1}
    assert current(tiny) == Counter(
        [
            ("u1", "i3", "2024-03-01"),
            ("u1", "i2", "2024-03-01"),
            ("u1", "other file", "2024-03-01"),
            ("u1", "i1", "2024-03-02"),
        ]
    )


def test_a_row_that_moves_to_another_day_is_counted_once(tiny: TinySource) -> None:
    tiny.deliver("interactions.csv", [event(), event(item="i2", at="2024-03-02 09:00:00")])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions.csv", [event(at="2024-03-02 09:00:00"), event(item="i2", at="2024-03-02 09:00:00")])
    tiny.ingest(AS_OF, "moved")
    assert current(tiny) == Counter([("u1", "i1", "2024-03-02"), ("u1", "i2", "2024-03-02")])
    tiny.ingest(AS_OF, "again")
    assert sum(current(tiny).values()) == 2


def test_identical_rows_stay_apart_in_raw(tiny: TinySource) -> None:
    tiny.deliver("interactions.csv", [event(), event()])
    tiny.ingest(AS_OF)
    assert current(tiny) == Counter({("u1", "i1", "2024-03-01"): 2})


def test_a_full_day_replaces_the_day_and_the_old_file_does_not_win_it_back(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings='delivery = "full_day"')
    tiny.deliver("interactions-1.csv", [event(), event(item="i2", at="2024-03-02 09:00:00")])
    tiny.ingest(AS_OF)
    tiny.deliver("interactions-2.csv", [event(item="i9")])
    expected = Counter([("u1", "i9", "2024-03-01"), ("u1", "i2", "2024-03-02")])
    for run_id in ("replaced", "again", "and again"):
        tiny.ingest(AS_OF, run_id)
        assert current(tiny) == expected
    tiny.deliver("interactions-1.csv", [event(item="i2", at="2024-03-02 09:00:00")])  # its old day vanishes
    tiny.ingest(AS_OF, "vanished")
    assert current(tiny) == expected
    fresh = tiny_source(tmp_path / "fresh", settings='delivery = "full_day"')
    fresh.deliver("interactions-1.csv", [event()])
    fresh.deliver("interactions-2.csv", [event(item="i9")])
    fresh.ingest(AS_OF)
    assert current(fresh) == Counter([("u1", "i9", "2024-03-01")])


def test_the_look_back_window_still_loads_an_older_day_that_grew(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="look_back_days = 3")
    new, old = event(at="2024-03-09 08:00:00"), event(at="2024-02-01 08:00:00")
    tiny.deliver("interactions.csv", [new, old])
    assert tiny.ingest(AS_OF)["interactions.csv"] == {LOADED: 2}
    tiny.deliver("interactions.csv", [new | {"item_id": "i2"}, old])
    assert tiny.ingest(AS_OF, "recent")["interactions.csv"] == {LOADED: 1, UNCHANGED: 1}
    tiny.deliver("interactions.csv", [new | {"item_id": "i2"}, old, old])
    assert tiny.ingest(AS_OF, "grown")["interactions.csv"] == {LOADED: 2, UNCHANGED: 1}
    assert sum(current(tiny).values()) == 3


def test_too_many_broken_rows_refuse_the_delivery_and_nothing_changes(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path / "tiny", settings="max_reject_share = 0.2")
    tiny.deliver("interactions.csv", [event()] * 10)
    tiny.ingest(AS_OF)
    tables = ("raw.interactions", "quarantine.rows", "raw.deliveries", "mart.accounting")
    before = [tiny.rows(f"from {table}") for table in tables]
    tiny.deliver("interactions.csv", [event()] * 7 + [event(user="")] * 3)
    with pytest.raises(RejectLimitError, match=r"3 of 10 rows \(30.00%\).*user_id missing.*max_reject_share"):
        tiny.ingest(AS_OF, "refused")
    assert [tiny.rows(f"from {table}") for table in tables] == before
    tiny.deliver("interactions.csv", [event()] * 8 + [event(user="")] * 2)
    assert tiny.ingest(AS_OF, "allowed")["interactions.csv"] == {LOADED: 8, ("quarantined", "user_id missing"): 2}


def test_a_missing_file_or_column_is_refused_by_name(tiny: TinySource) -> None:
    with pytest.raises(ContractError, match=r"interactions\.sql"):
        tiny.land(AS_OF)
    (tiny.input / "interactions.csv").write_text("line,user_id,event_type\n0,u1,view\n")
    with pytest.raises(ContractError, match="item_id"):
        tiny.land(AS_OF)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select 1 as user_id", "user_id must be VARCHAR, found INTEGER"),
        ("select 'u' as user_id; select 2", "exactly one SELECT"),
        ("create table raw.mine as select 1 as a", "exactly one SELECT"),
        ("copy (select 1 as a) to 'stolen.csv'", "exactly one SELECT"),
        ("selec 1", "not valid SQL"),
        ("select * from read_text('/etc/hostname')", "cannot read the input"),
        ("select * from read_csv('/etc/passwd', all_varchar = true)", "cannot read the input"),
    ],
)
def test_an_adapter_is_one_select_of_the_contract_over_its_input(tiny: TinySource, query: str, message: str) -> None:
    tiny.deliver("interactions.csv", [event()])
    tiny.adapt("interactions", query)
    with pytest.raises(ContractError, match=message):
        tiny.land(AS_OF)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour = 'red'", "colour"),
        ("time_zone = 'Europe/Atlantis'", "Atlantis"),
        ("natural_key = ['item_id']", "user_id"),
        ("delivery = 'sometimes'", "delivery"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line: str, message: str) -> None:
    tiny_source(tmp_path / "tiny", settings=line)
    with pytest.raises(UsageError, match=message):
        load_source(str(tmp_path / "tiny/source"))

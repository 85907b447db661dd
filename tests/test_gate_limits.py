"""The publish gate on a published shop: what it holds back, by which rule, and what it lets through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.degraded import DEGRADED
from benchmarks.harmless import HARMLESS
from benchmarks.relisted import RUN, Bench, prepare
from tasks.audit import audit
from tasks.errors import GateHeld, UsageError
from tasks.sources import Gate, load_source
from tasks.warehouse import open_warehouse, select, set_variables
from tests.conftest import Published
from tests.tiny_source import tiny_source

CAUGHT_BY = {
    "random items": "support",
    "inverted scores": "support",
    "user ids shuffled": "support",
    "one user's list for everybody": "support",
    "item ids shuffled": "support",
    "popularity for everybody": "support",
    "constant scores": "graded",
    "the first item left out": "first_kept",
    "ranks reversed, scores sorted": "agreement",
    "one score for all rows": "graded",
    "NaN scores": "scores are finite",
    "half of the users missing": "each known user has",
    "one list empty": "each known user has",
    "seen items in discover": "nothing a user already had in discover",
    "empty reasons": "reason are given",
    "whole rows dealt to the next user": "given as the reason is one the user had",
    "another ranker than the gate's": "the ranker the gate chose",
    "the last publication as it was": "of this date",
    "tables of another date": "of this date",
}
LET_THROUGH = (
    "as it was scored",
    "diversity 0.3",
    "lists of 10",
    "lists of 50",
    "a hundredth of noise",
    "ties",
    "the gate chose decayed_popularity",
    "a few users fewer",
    "a few users more",
    "a new item",
    "a holiday week with half the events",
    "the first publication",
    "after a gap of months",
)


@pytest.fixture(scope="module")
def relisted(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return prepare(published.home, tmp_path_factory.mktemp("relisted"))


@pytest.fixture
def bench(relisted: Bench) -> Iterator[Bench]:
    relisted.restore()
    return relisted


def rows(bench: Bench, query: str) -> list[tuple]:
    with open_warehouse(bench.home) as warehouse:
        return warehouse.execute(query).fetchall()


def with_limits(bench: Bench, **limits: object) -> list[dict]:
    """The audit's results under other limits."""
    source = bench.source.model_copy(update={"gate": Gate.model_validate(limits)})
    return audit(bench.home, source, bench.as_of, bench.top_k, RUN)


@pytest.mark.parametrize("kind", CAUGHT_BY)
def test_degraded_lists_are_held_back_by_the_rule_that_tells(kind: str, bench: Bench) -> None:
    DEGRADED[kind](bench)
    assert CAUGHT_BY[kind] in " ".join(bench.judge())


@pytest.mark.parametrize("kind", LET_THROUGH)
def test_harmless_changes_are_published(kind: str, bench: Bench) -> None:
    assert bench.judge(HARMLESS[kind](bench)) == []


def test_random_items_are_held_back_where_the_gate_chose_popularity(bench: Bench) -> None:
    bench.execute("update scored.gate set ranker = 'decayed_popularity'")
    HARMLESS["the gate chose decayed_popularity"](bench)
    assert bench.judge() == []
    DEGRADED["random items"](bench)
    bench.execute("update scored.recommendations set model = 'decayed_popularity' where model != 'segment_popularity'")
    assert "popularity" in " ".join(bench.judge())


def test_strangers_lists_for_half_of_the_users_are_held_back(bench: Bench) -> None:
    """As soon as there is an earlier publication whose lists had one before them."""
    assert bench.judge() == []
    recognised = dict(
        rows(
            bench,
            f"select rule, observed from mart.quality where run_id = '{RUN}' and rule like '%: recognised after %'",
        )
    )
    assert len(recognised) == 2 and all(0.8 < float(value) <= 1 for value in recognised.values())
    earlier = "(select run_id from mart.publications where as_of < {as_of} order by as_of desc limit 1)"
    bench.execute(
        f"update mart.quality set run_id = {earlier} where run_id = '{RUN}' and rule like '%: recognised after %'",
        f"delete from mart.quality where run_id = '{RUN}'",
    )
    assert bench.judge() == []
    bench.execute(f"delete from mart.quality where run_id = '{RUN}'")
    DEGRADED["half of the user ids shuffled"](bench)
    assert any("recognised after" in rule for rule in bench.judge())


def of_order(bench: Bench, list_name: str) -> dict[str, float]:
    with open_warehouse(bench.home) as warehouse:
        set_variables(warehouse, as_of=bench.as_of, repeats=True, horizon_days=bench.source.horizon_days)
        found = select(warehouse, "audit/support").to_pylist()
    return next(row for row in found if (row["list"], row["measure"]) == (list_name, "order"))


def test_equal_lists_are_one_observation_of_their_order(bench: Bench) -> None:
    assert of_order(bench, "for_you")["error"] < 0.1
    DEGRADED["one user's list for everybody"](bench)
    assert of_order(bench, "for_you")["error"] == 0.5


def test_lists_by_events_of_the_last_horizon_are_in_order(bench: Bench) -> None:
    """Though what had fewer of them had more before."""
    newest = f"count(*) filter (where age_days <= {bench.source.horizon_days})"
    bench.execute(
        f"create temp table sold as select item_index, {newest} as events from graph.interaction_edges group by item_index",
        "create temp table once as from graph.interaction_edges"
        " qualify row_number() over (partition by item_index order by user_index, age_days) = 1",
        "insert into graph.interaction_edges by name select once.* replace (20 as age_days) from once"
        " join sold using (item_index), lateral unnest(range(100 * ((select max(events) from sold) - events)))",
        "create temp table again as select list, user_id, item_id, row_number() over (partition by list, user_id"
        " order by rank > 10, coalesce(events, 0) desc, rank) as rank from scored.recommendations"
        " join graph.item_nodes using (item_id) left join sold using (item_index)",
        "update scored.recommendations set rank = again.rank from again where again.list = recommendations.list"
        " and again.user_id = recommendations.user_id and again.item_id = recommendations.item_id",
    )
    assert of_order(bench, "discover")["measured"] == 1


def test_the_message_names_limit_measure_and_next_step(bench: Bench) -> None:
    with pytest.raises(GateHeld) as held:
        with_limits(bench, min_ndcg={"for_you": 0.99})
    message = str(held.value)
    for part in ("for_you: ndcg@20 is 0.", "at least 0.99", "still served", f"mart.quality run {RUN}", "[gate]"):
        assert part in message
    assert held.value.exit_code == 3
    recorded = rows(bench, f"select severity, observed from mart.quality where run_id = '{RUN}' and not success")
    assert [severity for severity, _ in recorded] == ["critical"] and "at least 0.99" in recorded[0][1]


def test_every_limit_is_recorded_with_what_was_measured(bench: Bench) -> None:
    assert bench.judge() == []
    recorded = rows(bench, f"select rule, observed from mart.quality where run_id = '{RUN}' and rule like '%: %'")
    figures = {rule.split(": ")[1].split()[0].split("@")[0] for rule, _ in recorded}
    named = {name.removeprefix("min_") for name in Gate.model_fields if name.startswith("min_")}
    assert named - figures <= {"support_of_new"} and figures <= named  # the shop may have had no new user that week
    assert all(float(observed.split(",")[0]) > -1 for _, observed in recorded)


def test_not_holding_records_a_warning_and_lets_through(bench: Bench) -> None:
    source = bench.source.model_copy(update={"gate": Gate(min_ndcg={"for_you": 0.99})})
    results = audit(bench.home, source, bench.as_of, bench.top_k, RUN, hold=False)
    broken = [(one["rule"], one["severity"]) for one in results if not one["success"]]
    assert broken == [("for_you: ndcg@20", "warning")]


def test_old_events_are_held_back(bench: Bench) -> None:
    bench.execute("delete from graph.interaction_edges where age_days <= 20")
    bench.execute("update scored.recommendations set reason = 'trend', reason_item_id = null")
    with pytest.raises(GateHeld, match="age of the newest event is 21 days, at most 14"):
        with_limits(bench, max_drop=1)


def test_a_drop_of_the_holdouts_is_held_back_and_may_be_allowed(bench: Bench) -> None:
    bench.execute("update scored.metrics set value = value / 5 where metric = 'ndcg'")
    assert any("for_you: ndcg@20" in rule for rule in bench.judge())
    assert with_limits(bench, max_drop=0.95)


def test_what_is_published_later_or_withdrawn_is_no_measure(bench: Bench) -> None:
    def asked() -> list[tuple]:
        assert bench.judge() == []
        return rows(bench, f"select rule, observed from mart.quality where run_id = '{RUN}' order by all")

    before = asked()
    assert any("of the median" in observed for _, observed in before if observed)
    bench.restore()
    bench.execute(
        "insert into mart.runs by name select * replace ('later' as run_id, as_of + 30 as as_of) from mart.runs limit 1",
        "insert into mart.gate by name select * replace ('later' as run_id, as_of + 30 as as_of) from mart.gate",
        "insert into mart.quality by name select * replace ('later' as run_id, '9, far above' as observed) from mart.quality"
        " where rule like '%: %'",
    )
    assert asked() == before
    bench.restore()
    bench.execute("update mart.runs set withdrawn_at = started_at where as_of < {as_of}")
    assert not any("of the median" in observed for _, observed in asked() if observed)


@pytest.mark.parametrize(
    "line", ["most_drop = 0.5", "max_drop = 2", "min_ndcg = { elsewhere = 0.1 }", "max_age_days = 0"]
)
def test_a_limit_that_does_not_exist_is_refused(line: str, tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path, settings=f"[gate]\n{line}")
    with pytest.raises(UsageError, match=line.split(maxsplit=1)[0]):
        load_source(str(tiny.root / "source"))


def test_limits_are_read_from_the_source(tmp_path: Path) -> None:
    tiny = tiny_source(tmp_path, settings="[gate]\nmax_drop = 0.3\nmin_coverage = { discover = 0.2 }")
    assert tiny.source.gate.max_drop == 0.3
    assert tiny.source.gate.floors("discover") == {"coverage": 0.2}
    assert tiny.source.gate.floors("for_you") == {}

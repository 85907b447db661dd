"""Days like the coming ones: each column written out, and lists that follow a planted festival and the weather."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact import pack, unpack
from models.context import PRIOR_EVENTS, ContextDays
from models.graph import NEVER, NO_CONTEXT, Context, Graph
from models.network_ranker import NetworkRanker
from models.ranking import top_k
from models.settings import ModelSettings
from models.timeline import Timeline
from models.training import fit
from tests.models.tiny import tiny_graph, with_items_known

ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-6, 20),
        st.sampled_from([NEVER, 2, 5, 9, 14]),
        st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0]),
    ),
    unique_by=lambda row: row[:3],
)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 20)), min_size=1, unique=True)
HORIZON, BACK = 4, 5
PLAIN = ModelSettings(taste=False, epochs=4, learning_rate=2e-2)
FESTIVAL, ORDINARY = range(3), range(3, 15)
FESTIVALS = (-3, 77, 190, 262, 341, 461, 542, 655)  # age of the first of two days; no two a whole year apart
WEATHER = ("ice", "soup", "bread")


def context(rows: Iterable[tuple[int, int, int, float]], series: int = 1) -> Context:
    """(series, age of the day, age of the knowledge, value) rows."""
    columns = list(zip(*rows, strict=True)) or [()] * 4
    index, day, known = (torch.tensor(column, dtype=torch.int32) for column in columns[:3])
    names = tuple(f"s{number}" for number in range(series))
    return Context(names, index.long(), day, known, torch.tensor(columns[3], dtype=torch.float64))


def written_out(graph: Graph, item: int, series: int, back: int) -> float:
    """The column of models/context.py, day by day and event by event."""
    newest: dict[int, tuple[int, float]] = {}
    rows = graph.context
    for index, day, known, value in zip(*(c.tolist() for c in list(vars(rows).values())[1:]), strict=True):
        if index == series and known > back and (day not in newest or known < newest[day][0]):
            newest[day] = (known, value)
    days = {day: value for day, (_, value) in newest.items()}
    first, last = max([back + 1, *days]), min([back + 1, *days])
    sparse = 2 * len(days) < first - last + 1
    values = [*days.values(), *([0.0] if sparse else [])]
    low, span = min(values), max(values) - min(values)

    def x(day: int) -> float | None:
        if day not in days and not (sparse and day <= first):
            return None
        return (days.get(day, 0.0) - low) / span if span else 0.0

    ages = list(zip(graph.interactions.item_index.tolist(), graph.interactions.age_days.tolist(), strict=True))
    born = int(graph.item_age_days[item])
    shop = [x(age) for _, age in ages if back < age <= born]
    own = [x(age) for i, age in ages if age > back and i == item]
    shop, own = [v for v in shop if v is not None], [v for v in own if v is not None]
    p = sum(shop) / len(shop) if shop else 0.0
    ahead = [x(day) for day in range(back - HORIZON + 1, back + 1)]
    coming = sum(p if v is None else v for v in ahead) / HORIZON
    on = (sum(own) + PRIOR_EVENTS) / (len(own) * p + PRIOR_EVENTS)
    off = (len(own) - sum(own) + PRIOR_EVENTS) / (len(own) * (1 - p) + PRIOR_EVENTS)
    return log((coming * on + (1 - coming) * off) / (p * on + (1 - p) * off))


@given(EVENTS, ROWS, st.integers(0, 8))
@settings(deadline=None, max_examples=200)
def test_each_column_is_the_written_out_one(events: list, rows: list, back: int) -> None:
    graph = replace(tiny_graph(events, items=4), context=context(rows, series=2))
    column = ContextDays(graph, HORIZON).at(back)
    expected = [[written_out(graph, item, series, back) for series in range(2)] for item in range(4)]
    torch.testing.assert_close(column, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@given(EVENTS, ROWS)
@settings(deadline=None, max_examples=30)
def test_the_days_of_a_past_date_are_those_of_the_past_graph(events: list, rows: list) -> None:
    graph = replace(tiny_graph(events, items=4), context=context(rows, series=2))
    now, past = Timeline(graph, HORIZON, PLAIN), Timeline(graph.back(BACK), HORIZON, PLAIN)
    users = torch.arange(graph.user_count)
    assert torch.equal(now.at(BACK, users).trend, past.at(0, users).trend)


@given(EVENTS, ROWS, ROWS)
@settings(deadline=None, max_examples=100)
def test_what_became_known_on_or_after_a_date_changes_nothing_as_of_it(events: list, rows: list, poison: list) -> None:
    kept = [row for row in rows if row[2] > BACK]
    late = [(series, day, min(known, BACK), 100 * value) for series, day, known, value in poison]
    clean, poisoned = (
        replace(tiny_graph(events, items=4), context=context(some, series=2)) for some in (kept, kept + late)
    )
    assert torch.equal(ContextDays(clean, HORIZON).at(BACK), ContextDays(poisoned, HORIZON).at(BACK))
    back = [graph.back(BACK).context for graph in (clean, poisoned)]
    assert all(torch.equal(a, b) for a, b in zip(*(list(vars(it).values())[1:] for it in back), strict=True))


def test_a_row_known_for_ever_is_known_at_every_date_and_a_dated_one_from_its_day_on() -> None:
    rows = context([(0, -3, NEVER, 1.0), (0, -2, 10, 1.0)])
    assert [rows.back(days).day_age_days.tolist() for days in (9, 10)] == [[-12, -11], [-13]]
    assert rows.back(9).known_age_days.tolist() == [NEVER, 1]


def test_an_item_launched_in_a_festival_is_measured_against_what_the_shop_sold_since() -> None:
    """Both items sold on festival days only; the shop sold on others too, but only before the second was launched."""
    events = [(user, item, age) for user in range(20) for item, age in ((0, 40), (0, 5), (1, 5), (2, 30), (2, 20))]
    graph = replace(tiny_graph(events), context=context([(0, 40, NEVER, 1.0), (0, 5, NEVER, 1.0)]))
    graph = replace(graph, item_age_days=torch.tensor([40, 5, 40], dtype=torch.int32))
    quiet = ContextDays(graph, HORIZON).at(0)[:, 0]
    assert quiet[1] == 0 > quiet[0]


def festival_shop(festivals: Iterable[int] = FESTIVALS) -> Graph:
    """Each festival's two days sell items 0-2, all others 3-14, to 1,500 users; the calendar is known for ever."""
    dice = random.Random(2)
    planted = {first - day for first in FESTIVALS for day in range(2)}
    events = []
    for age in range(1, 700):
        items = FESTIVAL if age in planted else ORDINARY
        events += [(dice.randrange(1500), dice.choice(items), age) for _ in range(8)]
    days = [(0, first - day, NEVER, 1.0) for first in festivals for day in range(2)]
    return replace(with_items_known(tiny_graph(events)), context=context(days))


def top_items(graph: Graph, settings: ModelSettings = PLAIN) -> tuple[set[int], set[str]]:
    """What is recommended to one who never was at a festival, and why."""
    ranker = NetworkRanker(fit(graph, 7, settings, epochs=settings.epochs), graph)
    events = graph.interactions
    user = next(u for u in range(1500) if events.item_index[events.user_index == u].min() > max(FESTIVAL))
    items, _ = top_k(ranker, graph, torch.tensor([user]), 3, "discover", True)
    reasons, _, _ = ranker.explain(torch.full((3,), user), items[0], "discover")
    return set(items[0].tolist()), set(reasons)


def test_the_list_for_a_week_with_a_moving_festival_has_its_items_on_top_because_of_the_context() -> None:
    graph = festival_shop()
    items, reasons = top_items(graph)
    assert items == set(FESTIVAL)
    assert reasons == {"context"}


@pytest.mark.parametrize("lack", ["no context", "switched off", "shuffled", "no festival ahead"])
def test_without_what_the_context_knows_they_are_not(lack: str) -> None:
    graph, chosen = festival_shop(), PLAIN
    if lack == "no context":
        graph = replace(graph, context=NO_CONTEXT)
    elif lack == "switched off":
        chosen = PLAIN.model_copy(update={"context": False})
    elif lack == "shuffled":
        dice = random.Random(4)
        graph = festival_shop([-3, *dice.sample(range(10, 690), len(FESTIVALS) - 1)])
    else:
        graph = festival_shop(FESTIVALS[1:])
    items, _ = top_items(graph, chosen)
    assert not items & set(FESTIVAL)


def test_no_item_is_said_to_fit_the_days_where_nothing_is_known_of_them() -> None:
    graph = replace(festival_shop(), context=NO_CONTEXT)
    ranker, items = NetworkRanker(fit(graph, 7, PLAIN, epochs=1), graph), torch.arange(graph.item_count)
    reasons, _, _ = ranker.explain(torch.zeros_like(items), items, "discover")
    assert set(reasons) <= {"trend", "season"}


def test_a_packed_network_that_knows_days_scores_them_again() -> None:
    graph = festival_shop().back(7)
    network = fit(graph, 7, PLAIN, epochs=1)
    assert network.trend.shape[1] == fit(replace(graph, context=NO_CONTEXT), 7, PLAIN, epochs=1).trend.shape[1] + 1
    one, other = (
        NetworkRanker(it, graph).scores(torch.arange(2), "discover") for it in (network, unpack(pack(network)))
    )
    assert torch.equal(one, other)


def test_a_packed_network_scores_a_graph_whose_series_are_others() -> None:
    graph = festival_shop().back(7)
    days = graph.context
    network = fit(graph, 7, PLAIN, epochs=1)
    packed = pack(network) | {"item_ids": [], "entity_ids": [], "context_series": list(days.series)}
    more = replace(days, series=("earlier", *days.series), series_index=days.series_index + 1)
    least = {name: getattr(more, name)[:1] for name in ("day_age_days", "known_age_days", "value")}
    new = replace(more, series_index=torch.zeros_like(more.series_index[:1]), **least)
    both = replace(
        more, **{name: torch.cat([getattr(new, name), getattr(more, name)]) for name in (*least, "series_index")}
    )
    expected = NetworkRanker(network, graph).scores(torch.arange(2), "discover")

    def scores(context: Context) -> torch.Tensor:
        known = unpack(packed, series=context.series)
        return NetworkRanker(known, replace(graph, context=context)).scores(torch.arange(2), "discover")

    assert torch.allclose(scores(both), expected)
    without = scores(NO_CONTEXT)
    assert not torch.allclose(without, expected)
    with torch.no_grad():
        network.trend[:, -1] = 0
    assert torch.allclose(without, NetworkRanker(network, graph).scores(torch.arange(2), "discover"))


def weather_shop(coming: float, correction: float | None = None) -> Graph:
    """Daily temperatures, known the day after; ice sells with heat, soup with cold. A forecast of 3 days ago for the horizon.

    A correction of that forecast became known the day before the graph's date.
    """
    dice = random.Random(6)
    events, rows, heat = [], [], 0.5
    for age in range(500, 0, -1):
        heat = min(max(heat + dice.uniform(-0.35, 0.35), 0.0), 1.0)
        weights = (heat, 1 - heat, 0.6)
        events += [(dice.randrange(1500), dice.choices(range(3), weights)[0], age) for _ in range(12)]
        rows += [(0, age, max(age - 1, 1), 40 * heat - 10)]
        if age % 7 == 4:  # each week's forecast for the next seven days is right on average
            rows += [(0, age - ahead, age, 40 * heat - 10) for ahead in range(1, 8) if age - ahead > 3]
    rows += [(0, day, 4, coming) for day in range(3, -7, -1)]
    rows += [] if correction is None else [(0, day, 1, correction) for day in range(3, -7, -1)]
    newest = {(series, day, known): value for series, day, known, value in rows}
    days = context([(*key, value) for key, value in newest.items()])
    return replace(with_items_known(tiny_graph(events, as_of=date(2024, 6, 1))), context=days)


@pytest.mark.parametrize(("coming", "expected"), [(30.0, "ice"), (-10.0, "soup")])
def test_the_forecast_decides_between_ice_and_soup(coming: float, expected: str) -> None:
    graph = weather_shop(coming).back(3)
    network = fit(graph, 7, PLAIN, epochs=PLAIN.epochs)
    scores = NetworkRanker(network, graph).scores(torch.tensor([graph.user_count - 1]), "discover")[0]
    assert WEATHER[int(scores[:2].argmax())] == expected


def test_a_correction_counts_from_the_day_after_it_became_known_and_not_before() -> None:
    plain, corrected = weather_shop(30.0), weather_shop(30.0, correction=-10.0)
    network = fit(plain.back(3), 7, PLAIN, epochs=PLAIN.epochs)

    def ice_over_soup(graph: Graph) -> float:
        scores = NetworkRanker(network, graph).scores(torch.tensor([graph.user_count - 1]), "discover")[0]
        return float(scores[0] - scores[1])

    for days in (3, 1):
        assert ice_over_soup(corrected.back(days)) == ice_over_soup(plain.back(days))
    assert ice_over_soup(corrected) < ice_over_soup(plain)

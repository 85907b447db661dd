"""The season of items: the column written out event by event, blind to the future, and the test that finds seasonal items."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from math import cos, exp, log, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.graph import Graph
from models.kernels import year_phase
from models.season import CONCENTRATIONS, LATELY_DAYS, PRIOR_EVENTS, YEAR_DAYS, SeasonalSales, seasonal_items
from models.settings import ModelSettings
from models.timeline import Timeline
from tests.models.canary import poisoned
from tests.models.tiny import tiny_graph, with_items_known

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 900)), min_size=1, unique=True)
HORIZON, BACK = 14, 40


def kernel(phase: float, days: Iterable[date], concentration: float) -> float:
    """Mean over the days, of a phase in whole steps of the year."""
    step = round(phase * 365.25) / 365.25
    values = [exp(concentration * (cos(2 * pi * (year_phase(day) - step)) - 1)) for day in days]
    return sum(values) / len(values)


def written_out(graph: Graph, item: int, concentration: float, back: int) -> float:
    """The column of models/season.py, event by event."""
    events = graph.interactions
    rows = list(
        zip(events.item_index.tolist(), events.age_days.tolist(), events.year_phase.double().tolist(), strict=True)
    )
    window = (max(age for _, age, _ in rows) - back) // YEAR_DAYS * YEAR_DAYS
    rows = [row for row in rows if back < row[1] <= back + window]
    as_of = graph.as_of - timedelta(days=back)
    born, log_rates = int(graph.item_age_days[item]), []
    for period in (range(HORIZON), range(-LATELY_DAYS, 0)):
        days = [as_of + timedelta(days=ahead) for ahead in period]
        shop = [kernel(phase, days, concentration) for _, _, phase in rows]
        life = [kernel(phase, days, concentration) for _, age, phase in rows if age <= born]
        own = [kernel(phase, days, concentration) for i, _, phase in rows if i == item]
        prior = max(1.0, PRIOR_EVENTS * sum(shop) / max(1, len(shop)))
        log_rates.append(log((sum(own) + prior) / (len(own) * sum(life) / max(1, len(life)) + prior)))
    return log_rates[0] - log_rates[1]


@given(EVENTS, st.sampled_from([0, BACK]))
@settings(deadline=None, max_examples=50)
def test_each_column_is_the_written_out_one(events: list, back: int) -> None:
    graph = tiny_graph([*events, (0, 0, 900), (1, 1, 300)], items=4)
    column = SeasonalSales(graph, HORIZON).at(back)
    expected = [[written_out(graph, item, kappa, back) for kappa in CONCENTRATIONS] for item in range(4)]
    torch.testing.assert_close(column, torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_a_history_of_less_than_a_year_has_no_season() -> None:
    year = tiny_graph([(0, 0, 365), (0, 1, 100)])
    assert SeasonalSales(year, HORIZON).at(0).abs().max() > 0
    assert SeasonalSales(year, HORIZON).at(1).abs().max() == 0
    assert SeasonalSales(tiny_graph([]), HORIZON).at(0).shape == (0, len(CONCENTRATIONS))


@given(EVENTS)
@settings(deadline=None, max_examples=30)
def test_the_season_of_a_past_date_is_that_of_the_past_graph_whatever_came_later(events: list) -> None:
    graph = tiny_graph([*events, (0, 0, 900)], items=4)
    past = SeasonalSales(graph.back(BACK), HORIZON).at(0)
    for later in (graph, poisoned(graph, BACK)):
        torch.testing.assert_close(SeasonalSales(later, HORIZON).at(BACK), past, rtol=1e-5, atol=1e-6)


def test_own_events_of_earlier_years_come_back_at_their_time_of_the_year() -> None:
    graph = tiny_graph([(0, 0, 10), (0, 1, 180), (0, 2, 200), (0, 3, 360)])
    returning = Timeline(graph, HORIZON, ModelSettings(dimension=2)).at(0, torch.tensor([0])).history.returning
    assert returning is not None
    assert returning[:2].tolist() == [0, 0]  # this winter and last summer: half a year ago or less
    assert 0 < returning[2] < 0.01
    assert returning[3] > 0.9


def shop(share_in_season: float, seed: int = 3) -> Graph:
    """Three years of 40 items: of items 0 to 9 a share of the sales falls into July, the others sell all year alike."""
    dice = random.Random(seed)
    july = [age for age in range(1, 1096) if (date(2024, 1, 1) - timedelta(days=age)).month == 7]
    events = []
    for item in range(40):
        for _ in range(60):
            in_season = item < 10 and dice.random() < share_in_season
            events.append((dice.randrange(400), item, dice.choice(july) if in_season else dice.randrange(1, 1096)))
    return with_items_known(tiny_graph(events), 1095)


def test_items_with_a_season_are_found_with_their_peak_and_no_others() -> None:
    found = seasonal_items(shop(0.6))
    assert found.is_seasonal[:10].all()
    assert found.is_seasonal[10:].sum() <= 1
    assert ((found.peak_phase[:10] - year_phase(date(2023, 7, 16))).abs() < 0.06).all()


@pytest.mark.parametrize("seed", range(3))
def test_p_values_of_items_without_a_season_are_even(seed: int) -> None:
    p_value = torch.cat([seasonal_items(shop(0.0, 10 * seed + number)).p_value for number in range(5)])
    for share in (0.05, 0.2, 0.5):
        assert abs((p_value < share).double().mean() - share) < 4 * (share * (1 - share) / len(p_value)) ** 0.5


def test_without_the_phase_of_its_events_no_item_is_found() -> None:
    graph = shop(0.6)
    events = graph.interactions
    traded = torch.randperm(len(events.year_phase), generator=torch.Generator().manual_seed(0))
    blind = replace(graph, interactions=replace(events, year_phase=events.year_phase[traded]))
    assert not seasonal_items(blind).is_seasonal.any()


def test_repeats_soon_after_an_event_do_not_make_a_season() -> None:
    """One user buys item 0 on a hundred days of one spring, which says little about other users' spring."""
    graph = tiny_graph(
        [(0, 0, age) for age in range(250, 350)] + [(1, 0, 700)] + [(u, 1, 3 * u + 1) for u in range(300)]
    )
    found = seasonal_items(with_items_known(graph))
    assert found.sales[0] == 2
    assert not found.is_seasonal[0]

"""Kernels against values computed by hand."""

from __future__ import annotations

from datetime import date
from math import exp

import pytest
import torch

from models.kernels import decay, middle_of, phase_match, week_phase, year_phase


def test_an_event_one_half_life_old_counts_half() -> None:
    weights = decay(torch.tensor([0, 30, 60, 300]), 30)
    assert weights.tolist() == pytest.approx([1, 1 / 2, 1 / 4, 1 / 1024])


def test_with_an_infinite_half_life_nothing_fades() -> None:
    assert decay(torch.tensor([1, 10_000]), float("inf")).tolist() == [1, 1]


def test_the_phase_kernel_is_one_in_phase_and_least_half_a_cycle_away() -> None:
    weights = phase_match(torch.tensor([0.25, 0.5, 0.75]), 0.25, 3.0)
    assert weights.tolist() == pytest.approx([1, exp(-3), exp(-6)])


def test_the_year_wraps_around_at_new_year() -> None:
    end, start = year_phase(date(2023, 12, 30)), year_phase(date(2024, 1, 2))
    assert float(phase_match(torch.tensor(end), start, 5.0)) > 0.99


def test_phases_count_from_the_first_of_january_and_from_monday() -> None:
    assert year_phase(date(2024, 1, 1)) == 0
    assert year_phase(date(2024, 12, 31)) == pytest.approx(365 / 365.25)
    assert [week_phase(date(2024, 1, day)) for day in (1, 2, 7)] == pytest.approx([0, 1 / 7, 6 / 7])


def test_the_middle_of_one_day_is_that_day_and_of_a_week_its_fourth() -> None:
    assert middle_of(date(2024, 1, 1), 1) == date(2024, 1, 1)
    assert middle_of(date(2024, 1, 1), 7) == date(2024, 1, 4)

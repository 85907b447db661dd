"""How much an event still says: decays of its age and returns of its phase. Ages in days, phases in 0..1."""

from __future__ import annotations

from datetime import date, timedelta
from math import pi

import torch
from torch import Tensor

YEAR_CONCENTRATION = 5.0  # half the weight is left 31 days from the phase
WEEK_CONCENTRATION = 2.0  # half the weight is left a good day from the phase


def decay(age_days: Tensor, half_life_days: float | Tensor) -> Tensor:
    """2^(-age / half-life), elementwise; an infinite half-life gives 1."""
    return torch.exp2(-age_days / half_life_days)


def phase_match(phase: Tensor, query_phase: float, concentration: float) -> Tensor:
    """exp(κ (cos 2π(φ(T) − φ(t)) − 1)), elementwise: 1 at the same time of the cycle, e^(−2κ) opposite to it."""
    return torch.exp(concentration * (torch.cos(2 * pi * (query_phase - phase)) - 1))


def year_phase(day: date) -> float:
    """(day of the year − 1) / 365.25."""
    return (day.timetuple().tm_yday - 1) / 365.25


def week_phase(day: date) -> float:
    """(ISO day of the week − 1) / 7: 0 on Monday."""
    return day.weekday() / 7


def middle_of(as_of: date, horizon_days: int) -> date:
    """The day in the middle of the horizon: the time of year that a list for this horizon is for."""
    return as_of + timedelta(days=(horizon_days - 1) // 2)

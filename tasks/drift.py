"""When a number is out of the ordinary: bands around what it was in earlier weeks, from those weeks' own spread.

An alarm needs two things: a change that matters (a limit below) and one that chance does not make (four standard deviations).
The deviation is the larger of what the earlier values show and what so few users would show by chance alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, Any]
FEWEST_PAST = 4  # values; with fewer nothing is judged
DEVIATIONS = 3.5
FEWER, MORE = 0.6, 2.0  # of the usual count: a smaller change does not matter
ODDS = 2.0  # by which the odds of a share must change
LEAST_SHARE = 0.02  # by which a share must change
LEAST_DISTANCE = 0.1  # of two distributions
TIMES_PAST = 3.0  # the median distance of earlier weeks
LEAST_LISTING = 0.1  # by which a share of the lists must go beyond all earlier ones
TIMES_HIGHEST = 1.5  # the largest distance of earlier lists


@dataclass(frozen=True)
class Band:
    """What is ordinary: from `low` to `high`; `reference` is the usual value."""

    reference: float
    low: float
    high: float


def count_band(past: Sequence[float], units: float) -> Band | None:
    """Of a count, on the scale ln(1 + count). units: users behind it; a count of n users varies by 1/√n by chance."""
    if len(past) < FEWEST_PAST:
        return None
    centre, deviation = _spread([math.log1p(value) for value in past], 1 / math.sqrt(max(1.0, units)))
    low = min(centre + math.log(FEWER), centre - deviation)
    high = max(centre + math.log(MORE), centre + deviation)
    return Band(math.expm1(centre), max(0.0, math.expm1(low)), math.expm1(high))


def share_band(past: Sequence[float], units: float) -> Band | None:
    """Of a share in 0..1, on the scale asin √p, where that of n units varies by 1/(2 √n) by chance, whatever it is."""
    if len(past) < FEWEST_PAST or units < 1:
        return None
    centre, deviation = _spread([math.asin(math.sqrt(value)) for value in past], 0.5 / math.sqrt(units))
    usual = median(past)
    low = min(usual / (usual + ODDS * (1 - usual)), usual - LEAST_SHARE, _share(centre - deviation))
    high = max(ODDS * usual / (ODDS * usual + 1 - usual), usual + LEAST_SHARE, _share(centre + deviation))
    return Band(usual, max(0.0, low), min(1.0, high))


def listing_band(past: Sequence[float]) -> Band | None:
    """Of a share of the lists: beyond all earlier ones, whose extremes count since a day of retraining is one of them."""
    if len(past) < FEWEST_PAST:
        return None
    lowest, highest = min(past), max(past)
    low = min(lowest / (lowest + ODDS * (1 - lowest)), lowest - LEAST_LISTING)
    high = max(ODDS * highest / (ODDS * highest + 1 - highest), highest + LEAST_LISTING)
    return Band(median(past), max(0.0, low), min(1.0, high))


def listing_distance_band(past: Sequence[float], chance: float) -> Band | None:
    """Of a distance between the lists of two publications, beyond all earlier ones."""
    if len(past) < FEWEST_PAST:
        return None
    return Band(median(past), 0.0, max(LEAST_DISTANCE, TIMES_HIGHEST * max(past), chance))


def _share(angle: float) -> float:
    return math.sin(min(max(angle, 0.0), math.pi / 2)) ** 2


def days_band(past: Sequence[float]) -> Band | None:
    """Of days of silence: at least one more than usual."""
    if len(past) < FEWEST_PAST:
        return None
    centre, deviation = _spread(past, 0.0)
    return Band(centre, 0.0, centre + max(1.0, deviation))


def distance_band(past: Sequence[float], chance: float) -> Band | None:
    """Of a distance between distributions, from 0 on. chance: what it may be between samples of one distribution."""
    if len(past) < FEWEST_PAST:
        return None
    return Band(median(past), 0.0, max(LEAST_DISTANCE, TIMES_PAST * median(past), chance))


def psi(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Population stability index Σ (p − q) ln(p / q); half an event is added to each bin, so that none is empty."""
    total, reference_total = sum(counts) + len(counts) / 2, sum(reference) + len(counts) / 2
    pairs = [((a + 0.5) / total, (b + 0.5) / reference_total) for a, b in zip(counts, reference, strict=True)]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def psi_by_chance(bins: int, units: float, reference_units: float) -> float:
    """What PSI stays below when nothing changed.

    Two samples of n and m units of one distribution with B bins: PSI / (1/n + 1/m) is χ² with B − 1 degrees of freedom, of
    mean B − 1 and variance 2 (B − 1). Units are users and their days, since the events of a visit come together.
    """
    freedom = max(1, bins - 1)
    noise = 1 / max(1.0, units) + 1 / max(1.0, reference_units)
    return noise * (freedom + DEVIATIONS * math.sqrt(2 * freedom))


def ks_by_chance(units: float, reference_units: float) -> float:
    """What the Kolmogorov-Smirnov distance of two samples stays below, in all but one of 1,000 cases: 1.95 √(1/n + 1/m)."""
    return 1.95 * math.sqrt(1 / max(1.0, units) + 1 / max(1.0, reference_units))


def mix_distances(weeks: dict[int, dict[str, int]], measure: Callable[..., float] = psi) -> tuple[float, list[float]]:
    """How far week 0 is from the other weeks together, and each of these from the rest of them."""
    bins = sorted({name for counts in weeks.values() for name in counts})
    rows = {week: [counts.get(name, 0) for name in bins] for week, counts in weeks.items()}
    total = [sum(column) for column in zip(*(row for week, row in rows.items() if week), strict=True)]
    past = [
        measure(row, [whole - mine for whole, mine in zip(total, row, strict=True)])
        for week, row in sorted(rows.items())
        if week and len(rows) > 2
    ]
    return measure(rows[0], total), past


def _spread(values: Sequence[float], chance: float) -> tuple[float, float]:
    """The median, and so many deviations of one more value from it that more means something.

    1.4826 MAD estimates a normal deviation; with n values it is too small by about n / (n − 0.8) (Croux and Rousseeuw 1992).
    √(1 + π / 2n): the median of n values varies too.
    """
    count, centre = len(values), median(values)
    mad = median(abs(value - centre) for value in values)
    shown = 1.4826 * mad * count / (count - 0.8)
    return centre, DEVIATIONS * max(shown, chance) * math.sqrt(1 + math.pi / (2 * count))


def measured(kind: str, name: str, value: float | None, band: Band | None, list_name: str | None = None) -> Row:
    """A measure with its limits, which are null without a band."""
    limits = {"reference": band.reference, "low": band.low, "high": band.high} if band else {}
    blank = dict.fromkeys(("reference", "low", "high"))
    return {"kind": kind, "list": list_name, "name": name, "value": value} | blank | limits


def mixes(rows: list[Row]) -> list[tuple[str, dict[int, dict[str, int]], dict[int, int]]]:
    """Per distribution: its name, week → bin → events, and week → units."""
    mixes: dict[str, tuple[dict[int, dict[str, int]], dict[int, int]]] = {}
    for row in rows:
        weeks, units = mixes.setdefault(row["name"], ({}, {}))
        weeks.setdefault(row["week"], {})[row["bin"]] = row["events"]
        units[row["week"]] = max(units.get(row["week"], 0), row["units"])
    return [(name, weeks, units) for name, (weeks, units) in mixes.items() if 0 in weeks]

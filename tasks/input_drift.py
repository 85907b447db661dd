"""Drift of what comes in: counts, shares and distributions of the last day and week, and days of silence."""

from __future__ import annotations

from dataclasses import replace

from duckdb import DuckDBPyConnection

from tasks import drift
from tasks.drift import Row, measured
from tasks.warehouse import select

ONLY_MORE = ("excluded_share", "quarantined_share")
OF_EVENTS = ("users_day", "items_day", "users_week", "items_week")


def input_drift(warehouse: DuckDBPyConnection) -> list[Row]:
    """Counts and shares of the last day and week, their distributions, and days of silence."""
    rows = []
    for measure in select(warehouse, "mart/drift_days").to_pylist() + select(warehouse, "mart/drift_weeks").to_pylist():
        name, value = measure["name"], measure["value"]
        judge = drift.share_band if name.endswith("_share") else drift.count_band
        band = judge(measure["past"], measure["units"])
        if band and name in ONLY_MORE:
            band = replace(band, low=0.0)
        if value == 0 and name in OF_EVENTS:
            band = None  # the count of events says it
        rows.append(measured("input", name, value, band))
    for name, weeks, units in drift.mixes(select(warehouse, "mart/drift_mix").to_pylist()):
        rows += _distance("input", f"{name} mix", weeks, units)
    for measure in select(warehouse, "mart/drift_freshness").to_pylist():
        rows.append(measured("freshness", measure["name"], measure["value"], drift.days_band(measure["past"])))
    return rows


def _distance(kind: str, name: str, weeks: dict[int, dict[str, int]], units: dict[int, int]) -> list[Row]:
    """PSI of the last week against the weeks before; none of what has one value only."""
    bins = len({value for counts in weeks.values() for value in counts})
    if bins < 2 or len(weeks) < 2:
        return []
    value, past = drift.mix_distances(weeks)
    chance = drift.psi_by_chance(bins, units[0], sum(count for week, count in units.items() if week))
    return [measured(kind, name, value, drift.distance_band(past, chance))]

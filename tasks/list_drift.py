"""Drift of what is listed: a publication beside the one before it, and beside what changed between earlier ones."""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from tasks import drift
from tasks.drift import Row, measured
from tasks.warehouse import select

SHIFTS = ("kept_share", "rank_overlap", "score_shift")  # which another ranker changes by decision
SHIFT = "reason_shift"
SHARES = ("kept_share", "rank_overlap", "coverage", "top_10_share")


def list_drift(warehouse: DuckDBPyConnection) -> list[Row]:
    """The lists of the date, beside those of the publication before and beside its own predecessors."""
    found = select(warehouse, "mart/drift_lists").to_pylist()
    gap_days = {row["list"]: row["value"] for row in found if row["name"] == "days_since_previous"}
    past: dict[tuple[str, str], list[float]] = {}
    if gap := max((days for days in gap_days.values() if days), default=None):
        kept = select(warehouse, "mart/drift_past", gap_days=gap).to_pylist()
        past = {(row["list"], row["name"]): row["past"] for row in kept}
    rows, decided = [], {row["list"]: row["is_other_model"] for row in found}
    for row in found:
        name, before = row["name"], past.get((row["list"], row["name"]), [])
        band = None
        if name in SHARES:
            band = drift.listing_band(before)
        elif name == "score_shift":
            band = drift.listing_distance_band(before, drift.ks_by_chance(row["units"], row["units"]))
        if name in SHIFTS and row["is_other_model"]:
            band = None
        rows.append(measured("lists", name, row["value"], band, row["list"]))
    return rows + _reasons(warehouse, decided, {name: before for (name, what), before in past.items() if what == SHIFT})


def _reasons(warehouse: DuckDBPyConnection, decided: dict[str, bool], past: dict[str, list[float]]) -> list[Row]:
    """The share of each reason, and how far the reasons are from those of the publication before."""
    rows = []
    for name, weeks, units in drift.mixes(select(warehouse, "mart/drift_reasons").to_pylist()):
        total = sum(weeks[0].values())
        for why, count in sorted(weeks[0].items()):
            rows.append(measured("lists", f"reason {why}", count / total, None, name))
        if 1 in weeks:
            shift, _ = drift.mix_distances(weeks)
            chance = drift.psi_by_chance(len({*weeks[0], *weeks[1]}), units[0], units[1])
            band = None if decided[name] else drift.listing_distance_band(past.get(name, []), chance)
            rows.append(measured("lists", SHIFT, shift, band, name))
    return rows

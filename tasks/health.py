"""Drift and health of a publication: what came in, what was listed, how fresh it is, how good earlier lists proved to be."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from statistics import fmean

import polars as pl
from duckdb import DuckDBPyConnection

from tasks import drift
from tasks.drift import Band, Row, measured
from tasks.input_drift import input_drift
from tasks.list_drift import list_drift
from tasks.sources import Source
from tasks.warehouse import exists, open_warehouse, replace_partition, scalar, select, set_variables, transaction

TEXT, NUMBER = pl.String, pl.Float64
DRIFT = {"as_of": pl.Date, "run_id": TEXT, "kind": TEXT, "list": TEXT, "name": TEXT, "value": NUMBER}
DRIFT |= {"reference": NUMBER, "low": NUMBER, "high": NUMBER, "severity": TEXT, "message": TEXT}
REALISED = (
    "as_of date, list varchar, k integer, metric varchar, value double, users bigint, standard_error double,"
    " horizon_days integer, measured_at timestamp, run_id varchar"
)
REMEASURED_HORIZONS = 3  # whose events may still arrive late
PROMISE_KEPT = 0.6  # of the holdouts' NDCG; less, beyond chance, is an alarm
WORDS = {
    "events_day": "events of the last day",
    "users_day": "users of the last day",
    "items_day": "items of the last day",
    "events_week": "events of the last 7 days",
    "users_week": "users of the last 7 days",
    "items_week": "items of the last 7 days",
    "new_user_share": "share of users who are new",
    "new_item_share": "share of items that are new",
    "excluded_share": "share of rows excluded",
    "quarantined_share": "share of rows quarantined",
    "silent_days": "days without an event",
    "model_age_days": "days since the model was trained",
    "coverage": "share of live items listed",
    "top_10_share": "share of rows of the ten most listed items",
    "kept_share": "share of rows kept from the previous lists",
    "rank_overlap": "rank-biased overlap with the previous lists",
    "score_shift": "distance of the scores from the previous ones",
    "reason_shift": "distance of the reasons from the previous ones",
    "realised_ndcg": "NDCG of the lists whose days have come, beside the holdouts'",
}


def measure_health(home: Path, source: Source, as_of: date, run_id: str) -> list[Row]:
    """Measures the publication of `as_of` and those whose horizon ended by then; writes `mart.drift` and `mart.realised`.

    Call it after publishing, while `staging.*` is that of `as_of`: it sees nothing later. Returns the rows of `mart.drift`:
    severity is ok, warning or critical, None where there is too little to judge by; an alarm has its sentence in message.
    """
    with open_warehouse(home) as warehouse:
        warehouse.execute(f"create table if not exists mart.realised ({REALISED})")
        warehouse.register("frame", pl.DataFrame([], DRIFT).to_arrow())
        warehouse.execute("create table if not exists mart.drift as from frame")
        _set_out(warehouse, source, as_of, run_id)
        with transaction(warehouse):
            rows = input_drift(warehouse)
            if exists(warehouse, "mart.runs") and exists(warehouse, "mart.recommendations"):
                _write_realised(warehouse)
                rows += [
                    *list_drift(warehouse),
                    *_promises(warehouse, as_of, source.horizon_days),
                    *_model_age(warehouse, source, as_of, run_id),
                ]
            rows = [row | {"as_of": as_of, "run_id": run_id} | _verdict(row, source.health.quiet) for row in rows]
            frame = pl.DataFrame([{name: row[name] for name in DRIFT} for row in rows], DRIFT)
            warehouse.register("frame", frame.to_arrow())
            replace_partition(warehouse, "mart.drift", "select * from frame", as_of=as_of)
    return rows


def alarms(rows: list[Row]) -> list[Row]:
    """The rows of `measure_health` that ask for a person, critical ones first."""
    return sorted((row for row in rows if row["severity"] in ("warning", "critical")), key=lambda row: row["severity"])


def _set_out(warehouse: DuckDBPyConnection, source: Source, as_of: date, run_id: str) -> None:
    """Sets the variables of every SELECT."""
    _name_publications(warehouse)
    started = "select max(started_at) from mart.runs where run_id = $run_id"
    started_at = scalar(warehouse, started, run_id=run_id) if exists(warehouse, "mart.runs") else None
    set_variables(
        warehouse,
        as_of=as_of,
        lag_days=source.health.lag_days,
        horizon_days=source.horizon_days,
        repeats=source.repeats,
        since=as_of - timedelta(days=REMEASURED_HORIZONS * source.horizon_days),
        measured_at=started_at,
    )
    closed = [day.isoformat() for day in source.health.closed_dates]
    warehouse.execute("set variable closed_dates = $closed::varchar[]::date[]", {"closed": closed})


def _name_publications(warehouse: DuckDBPyConnection) -> None:
    """Sets the variable `publications` to the relation of publications not withdrawn, by its name in this home."""
    publications = "mart.publications"
    if not exists(warehouse, publications) and exists(warehouse, "mart.recommendations"):
        publications = "known_publications"
        query = "select distinct as_of, run_id from mart.recommendations"
        warehouse.execute(f"create or replace temp view {publications} as {query}")
    set_variables(warehouse, publications=publications)


def _write_realised(warehouse: DuckDBPyConnection) -> None:
    grades = pl.DataFrame(select(warehouse, "mart/realised"))
    for as_of in grades["as_of"].unique(maintain_order=True):
        warehouse.register("frame", grades.filter(pl.col("as_of") == as_of).to_arrow())
        replace_partition(warehouse, "mart.realised", "select * from frame", as_of=as_of)


def promises(warehouse: DuckDBPyConnection, as_of: date, ended_days: int) -> list[Row]:
    """Per publication and list whose horizon ended in these days before `as_of`: NDCG proved and promised, newest first."""
    if not all(exists(warehouse, f"mart.{table}") for table in ("realised", "metrics", "gate")):
        return []
    _name_publications(warehouse)
    return select(warehouse, "mart/drift_promises", as_of=as_of, ended_days=ended_days).to_pylist()


def _promises(warehouse: DuckDBPyConnection, as_of: date, horizon_days: int) -> list[Row]:
    """Per list the publications whose horizon ended in the last one; these overlap, so that many are no surer than one."""
    rows = []
    proved = [row for row in promises(warehouse, as_of, horizon_days) if row["promise"] is not None]
    for name in dict.fromkeys(row["list"] for row in proved):
        mine = [row for row in proved if row["list"] == name]
        promise, band = fmean(row["promise"] for row in mine), None
        errors = [row["standard_error"] for row in mine if row["standard_error"] is not None]
        if errors:  # one user alone has none
            band = Band(promise, max(0.0, PROMISE_KEPT * promise - drift.DEVIATIONS * fmean(errors)), 1.0)
        rows.append(measured("realised", "realised_ndcg", fmean(row["value"] for row in mine), band, name))
    return rows


def _model_age(warehouse: DuckDBPyConnection, source: Source, as_of: date, run_id: str) -> list[Row]:
    """Days since the model of the run was trained, or the newest one where the run does not name its model yet."""
    if not exists(warehouse, "mart.models"):
        return []
    age = scalar(
        warehouse,
        "select $as_of::date - max(trained_as_of) from mart.models where trained_as_of <= $as_of and (model_version ="
        " (select model_version from mart.runs where run_id = $run_id) or (select model_version from mart.runs"
        " where run_id = $run_id) is null)",
        as_of=as_of,
        run_id=run_id,
    )
    if age is None:
        return []
    return [measured("freshness", "model_age_days", float(age), Band(0.0, 0.0, float(source.health.most_model_days)))]


def _verdict(row: Row, quiet: tuple[str, ...]) -> Row:
    """Severity and sentence of a measure."""
    value, low, high = row["value"], row["low"], row["high"]
    if value is None or low is None or row["name"] in quiet:
        return {"severity": None, "message": None}
    if low <= value <= high:
        return {"severity": "ok", "message": None}
    fallen = row["name"] == "events_week" and value < low / 2
    stuck = row["name"] == "silent_days" and value > 3 * high
    what = WORDS.get(row["name"], f"distance of the {row['name']} from that of the 8 weeks before")
    of = f" ({row['list']})" if row["list"] else ""
    limits = f"usually {_number(row['reference'])}, ordinary is {_number(low)} to {_number(high)}"
    return {
        "severity": "critical" if fallen or stuck else "warning",
        "message": f"{what}{of}: {_number(value)}; {limits}",
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

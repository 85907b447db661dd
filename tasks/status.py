"""The state of a home as one JSON object, `<home>/status.json`, so that a look at it needs neither warehouse nor lock."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from tasks.errors import UsageError
from tasks.health import promises
from tasks.sources import load_source
from tasks.warehouse import exists, open_warehouse, read_home, scalar, storing

LAST_RUNS = 10
LAST_PROMISES = 10  # rows: publications and lists
PROMISE_DAYS = 366  # in which their horizons ended
Status = dict[str, Any]
EMPTY: Status = {"version": 1, "written_at": None, "source": None, "input": None, "time_zone": "UTC"}
EMPTY |= dict.fromkeys(("published", "running"))
EMPTY |= {name: [] for name in ("models", "data", "runs", "alarms", "promises", "stale", "withdrawn")}


def write_status(home: Path, at: datetime) -> Status:
    """Writes `status.json` whole or not at all; call it under the lock when a run starts and when it ends, however it ended."""
    status = _collect(home, at)
    partial = home / "status.json.partial"
    with storing(home):
        partial.write_text(json.dumps(status, indent=2, default=_as_text) + "\n")
        os.replace(partial, home / "status.json")
    return json.loads((home / "status.json").read_text())


def read_status(home: Path) -> Status | None:
    """What `write_status` wrote last; None where it never did."""
    file = home / "status.json"
    return json.loads(file.read_text()) if file.exists() else None


def is_writing(home: Path, status: Status | None) -> bool:
    """Whether a process holds the home's lock, asked without taking it; where the kernel does not tell, what a run wrote."""
    lock = home / "lock"
    try:
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        inode = str(lock.stat().st_ino)
    except OSError:
        return bool(status and status["running"])
    return any("FLOCK" in fields and any(part.endswith(f":{inode}") for part in fields) for fields in held)


def disk_use(home: Path) -> dict[str, int]:
    """Bytes by what they are for, and how many versions are kept of what has versions."""
    sizes = {"warehouse": 0, "serving": 0, "models": 0, "other": 0}
    for folder, _, files in os.walk(home):
        top = Path(folder).relative_to(home).parts[:1]
        for file in files:
            path = Path(folder, file)
            part = "warehouse" if file.startswith("warehouse.duckdb") else top[0] if top else "other"
            if not path.is_symlink() and path.exists():
                sizes[part if part in sizes else "other"] += path.stat().st_size
    return sizes | {
        "serving_versions": len(list(home.glob("serving/almanac-*.duckdb"))),
        "parquet_dates": len(list(home.glob("serving/recommendations/as_of=*"))),
        "model_versions": len(list(home.glob("models/*.pt"))),
    }


def troubles(status: Status, served: date | None, today: date, writing: bool) -> list[str]:
    """Why somebody should look, in sentences; empty when all is well. today: in the source's time zone."""
    found = []
    if served is None:
        found.append("nothing is served yet")
    elif (today - served).days > 1:
        found.append(f"late: the newest lists are for {served}, {(today - served).days} days ago")
    if status["runs"]:
        last = status["runs"][0]
        ended = "killed" if last["status"] == "running" and not writing else last["status"]
        if ended not in ("published", "loaded", "running"):
            found.append(f"the last run, for {last['as_of']}, ended {ended}")
    if status["alarms"]:
        count = len(status["alarms"])
        found.append(f"{count} alarm{'s' if count > 1 else ''} on the lists of {status['published']['as_of']}")
    return found


def _collect(home: Path, at: datetime) -> Status:
    with open_warehouse(home) as warehouse:
        runs = _runs(warehouse)
        published = _published(warehouse, runs)
        as_of = published["as_of"] if published else None
        stand = {run["as_of"] for run in runs if _stands(run)}
        return {
            "version": 1,
            "written_at": at,
            **_source(home, runs),
            "published": published,
            "models": _models(warehouse, published),
            "data": _data(warehouse),
            "running": next((_shown(run) for run in runs if run["status"] == "running"), None),
            "runs": [_shown(run) for run in runs[:LAST_RUNS]],
            "alarms": _alarms(warehouse, published),
            "promises": promises(warehouse, as_of, PROMISE_DAYS)[:LAST_PROMISES] if as_of else [],
            "stale": sorted({run["as_of"] for run in runs if run.get("stale_since") and _stands(run)}),
            "withdrawn": sorted({run["as_of"] for run in runs if run.get("withdrawn_at")} - stand),
        }


def _source(home: Path, runs: list[Status]) -> Status:
    """The source as the last run named it, its input and its time zone (UTC where its folder is gone)."""
    config = json.loads(runs[0]["config"] or "{}") if runs else {}
    name = config.get("source", read_home(home).get("source"))
    try:
        time_zone = load_source(str(name)).time_zone
    except UsageError:
        time_zone = "UTC"
    return {"source": name, "input": read_home(home).get("input"), "time_zone": time_zone}


def _runs(warehouse: DuckDBPyConnection) -> list[Status]:
    if not exists(warehouse, "mart.runs"):
        return []
    return warehouse.sql("select * from mart.runs order by started_at desc").to_arrow_table().to_pylist()


def _shown(run: Status) -> Status:
    names = ("as_of", "run_id", "status", "started_at", "finished_at", "model_version")
    lines = (run["message"] or "").splitlines() or [None]
    seconds = sum(took for _, took in run["seconds"] or ())
    return {name: run[name] for name in names} | {"seconds": round(seconds, 1), "message": lines[0]}


def _stands(run: Status) -> bool:
    return run["status"] == "published" and not run.get("withdrawn_at")


def _published(warehouse: DuckDBPyConnection, runs: list[Status]) -> Status | None:
    """The newest publication that stands; of a date published more than once, the newest run."""
    standing = [run for run in runs if _stands(run)]
    if not standing:
        return None
    run = max(standing, key=lambda run: (run["as_of"], run["started_at"]))
    at = run.get("published_at") or run["finished_at"]
    return {"as_of": run["as_of"], "run_id": run["run_id"], "published_at": at, "model_version": run["model_version"]}


def _models(warehouse: DuckDBPyConnection, published: Status | None) -> list[Status]:
    """Per list what makes it and why: the gate's sentence."""
    if not published or not exists(warehouse, "mart.gate"):
        return []
    query = "select list, ranker, why from mart.gate where as_of = $as_of and run_id = $run_id order by list desc"
    parameters = {name: published[name] for name in ("as_of", "run_id")}
    rows = warehouse.sql(query, params=parameters).to_arrow_table().to_pylist()
    trained = None
    if exists(warehouse, "mart.models"):
        when = "select max(trained_as_of) from mart.models where model_version = $version"
        trained = scalar(warehouse, when, version=published["model_version"])
    return [row | {"model_version": published["model_version"], "trained_as_of": trained} for row in rows]


def _data(warehouse: DuckDBPyConnection) -> list[Status]:
    """Per source table its newest date and delivery."""
    if not exists(warehouse, "raw.deliveries"):
        return []
    query = (
        "select table_name, max(delivery_date) filter (where row_count > 0) as newest_date, max(loaded_at) as loaded_at,"
        " cast(sum(row_count) as bigint) as row_count from raw.deliveries where superseded_at is null"
        " group by table_name order by table_name = 'interactions' desc, table_name"
    )
    return warehouse.sql(query).to_arrow_table().to_pylist()


def _alarms(warehouse: DuckDBPyConnection, published: Status | None) -> list[Status]:
    if not published or not exists(warehouse, "mart.drift"):
        return []
    query = (
        "select severity, kind, list, name, value, reference, low, high, message from mart.drift"
        " where as_of = $as_of and run_id = $run_id and severity in ('warning', 'critical') order by severity, kind, name, list"
    )
    parameters = {name: published[name] for name in ("as_of", "run_id")}
    return warehouse.sql(query, params=parameters).to_arrow_table().to_pylist()


def _as_text(value: Any) -> str:
    """Dates as 2011-08-08, times as UTC."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in status.json")

"""`almanac status`: what is served and whether somebody should look, on one screen or as JSON."""

from __future__ import annotations

import json
import shlex
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.table import Table
from rich.text import Text

from flows.configuration import DEFAULT_HOME
from flows.terminal import Home, Verbose, console, query, reported, say
from tasks.errors import UsageError
from tasks.files import plain

STYLES = {"published": "green", "loaded": "green", "running": "cyan", "warning": "yellow", "critical": "bold red"}
SHOWN_MESSAGE = 60  # signs of a run's message in the table; --json has the line
SHOWN_ALARMS = 12


def status(
    home: Home = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead, for machines.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 when lists are late, the last run went wrong or alarms are open."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Show what is served, by which model and why, how the last runs ended, alarms, and how good past lists proved to be.

    It reads what the last run wrote (`status.json`) and the serving file, so it never waits for a run nor stops one.
    """
    with reported(verbose):
        found = look(home.resolve())
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _show(found)
    if check and found["troubles"]:
        raise typer.Exit(1)


def look(home: Path) -> dict[str, Any]:
    """All that `almanac status` tells of a home: `status.json`, with what is served, the disk and today's troubles added."""
    from tasks.status import disk_use, is_writing, read_status, troubles

    if not (home / "warehouse.duckdb").exists():
        raise UsageError(f"nothing has run in {home} yet; start with `almanac demo` or `almanac run --help`")
    found = read_status(home) or _made_now(home)
    served, writing = _served(home), is_writing(home, found)
    today = datetime.now(ZoneInfo(found["time_zone"])).date()
    newest = date.fromisoformat(served["as_of"]) if served else None
    told = {"home": str(home), "served": served, "is_writing": writing, "disk": disk_use(home)}
    return found | told | {"troubles": troubles(found, newest, today, writing)}


def _made_now(home: Path) -> dict[str, Any]:
    """For a home whose last run was of a version that wrote no `status.json`; needs the lock for a moment, once."""
    from tasks.status import EMPTY, write_status
    from tasks.warehouse import exclusive

    try:
        with exclusive(home):
            return write_status(home, datetime.now(ZoneInfo("UTC")).replace(tzinfo=None))
    except UsageError:
        return dict(EMPTY)


def _served(home: Path) -> dict[str, Any] | None:
    """What a reader sees at this moment."""
    link = home / "serving" / "almanac.duckdb"
    if not link.exists():
        return None
    counts = "select max(as_of), count(*), count(distinct user_id) from current_recommendations"
    as_of, rows, users = query(home, counts)[1][0]
    since = datetime.fromtimestamp(link.lstat().st_mtime, ZoneInfo("UTC")).isoformat(timespec="seconds")
    return {"as_of": str(as_of), "rows": rows, "users": users, "file": str(link), "since": since}


def _show(found: dict[str, Any]) -> None:
    _show_served(found)
    for row in found["models"]:
        say(
            f"  {plain(row['why'] or row['ranker'], 300)}; model {row['model_version']}, trained {row['trained_as_of']}"
        )
    for row in found["data"][:1]:
        say(f"Data: newest event {row['newest_date']}, newest delivery {_time(row['loaded_at'])} UTC")
    for trouble in found["troubles"]:
        console.print(Text.assemble(("! ", "bold red"), plain(trouble, 300)), soft_wrap=True)
    for row in found["alarms"][:SHOWN_ALARMS]:
        console.print(
            Text.assemble((row["severity"], STYLES[row["severity"]]), "  ", plain(row["message"], 300)), soft_wrap=True
        )
    if len(found["alarms"]) > SHOWN_ALARMS:
        say(f"  and {len(found['alarms']) - SHOWN_ALARMS} more: select * from mart.drift, or --json")
    if not found["alarms"] and found["runs"]:
        say("Alarms: none")
    if found["runs"]:
        console.print(_runs(found["runs"]))
    if found["promises"]:
        console.print(_promises(found["promises"]))
    _show_repairs(found)
    disk = found["disk"]
    sizes = ", ".join(f"{part} {_size(disk[part])}" for part in ("warehouse", "serving", "models", "other"))
    kept = f"{disk['serving_versions']} serving files, {disk['parquet_dates']} dates, {disk['model_versions']} models"
    say(f"Disk: {sizes}; kept: {kept}")


def _show_served(found: dict[str, Any]) -> None:
    served = found["served"]
    say(f"Home {found['home']}, source {plain(str(found['source']), 100)}")
    if served:
        what = f"lists for {served['as_of']}, {served['rows']:,} rows for {served['users']:,} users"
        say(f"Served: {what}, since {_time(served['since'])} UTC: {served['file']}")
    else:
        say("Served: nothing yet")
    running = found["running"]
    if found["is_writing"]:
        what = f"for {running['as_of']}, since {_time(running['started_at'])} UTC" if running else "or another command"
        say(f"A run is writing now ({what}); it shows below when it is done")
    elif running:
        say(f"The run for {running['as_of']} of {_time(running['started_at'])} UTC was killed; run it again")


def _runs(runs: list[dict[str, Any]]) -> Table:
    table = Table("as of", "status", "started (UTC)", "seconds", "run", "message", title="Last runs")
    for run in runs:
        state = Text(run["status"], STYLES.get(run["status"], "red"))
        message = Text(plain(run["message"] or "", SHOWN_MESSAGE))
        started = _time(run["started_at"])
        table.add_row(run["as_of"], state, started, f"{run['seconds']:.0f}", run["run_id"], message)
    return table


def _promises(rows: list[dict[str, Any]]) -> Table:
    """Beside each other what the lists proved to be worth and what the holdouts promised."""
    title = f"Lists whose days have come: NDCG@{rows[0]['k']}"
    table = Table("as of", "list", "ranker", "realised", "± s.e.", "promised", "users", title=title)
    for row in rows:
        numbers = [_number(row[name]) for name in ("value", "standard_error", "promise")]
        table.add_row(row["as_of"], row["list"], plain(row["ranker"] or ""), *numbers, f"{row['users']:,}")
    return table


def _show_repairs(found: dict[str, Any]) -> None:
    if stale := found["stale"]:
        options = ["--source", found["source"], "--input", found["input"], "--home", found["home"]]
        command = shlex.join(["almanac", "backfill", *map(str, options), "--stale"])
        dates = ", ".join(stale[:5]) + (f" and {len(stale) - 5} more" if len(stale) > 5 else "")
        say(f"Stale, since their data changed: {dates}. Repair: {plain(command, 1000)}")
    if withdrawn := found["withdrawn"]:
        say(f"Withdrawn by rollback: {', '.join(withdrawn[-5:])}")


def _time(text: str | None) -> str:
    return (text or "unknown")[:16].replace("T", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"

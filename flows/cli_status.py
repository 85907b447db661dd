"""`almanac status`."""

from __future__ import annotations

from rich.table import Table

from flows.configuration import DEFAULT_HOME
from flows.terminal import Home, Verbose, console, query, reported
from tasks.errors import UsageError


def status(home: Home = DEFAULT_HOME, verbose: Verbose = False) -> None:
    """Show what is served and how the last runs ended."""
    from tasks.runs import recent_runs
    from tasks.warehouse import exclusive

    with reported(verbose):
        if not (home / "warehouse.duckdb").exists():
            raise UsageError(f"nothing has run in {home} yet; start with `almanac demo` or `almanac run --help`")
        if (home / "serving" / "almanac.duckdb").exists():
            _, rows = query(home, "select max(as_of), count(*), count(distinct user_id) from current_recommendations")
            as_of, count, people = rows[0]
            console.print(f"Served: lists for {as_of}, {count:,} rows for {people:,} users")
        else:
            console.print("Served: nothing yet")
        try:
            with exclusive(home):  # the warehouse has one writer; a look must not get in its way
                rows = recent_runs(home.resolve(), 10)
        except UsageError:
            console.print("A run is writing now; its row and those before it show when it is done")
            return
        table = Table("as of", "status", "started (UTC)", "seconds", "run", "message", title="Last runs")
        for row in rows:
            took = sum(seconds for _, seconds in row["seconds"] or ())
            started = f"{row['started_at']:%Y-%m-%d %H:%M}"
            table.add_row(str(row["as_of"]), row["status"], started, f"{took:.0f}", row["run_id"], row["message"] or "")
        console.print(table)

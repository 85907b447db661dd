"""The `almanac` command line: run a source for a date, look at lists, runs and sources."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.cli_backtest import run_backtest
from flows.cli_forget import forget_user
from flows.cli_operations import backfill, models, promote, rollback
from flows.cli_serve import serve
from flows.cli_sources import sources
from flows.cli_status import status
from flows.configuration import DEFAULT_HOME, RunConfig
from flows.secrets import kept
from flows.terminal import (
    DAILY_MODELS,
    Device,
    Home,
    KnownAt,
    Models,
    Notify,
    Postgres,
    PublishAnyway,
    Retrain,
    TopK,
    Verbose,
    configured,
    console,
    query,
    ready,
    reported,
    rivals,
    say,
)
from tasks.errors import UsageError
from tasks.files import plain
from tasks.warehouse import MEMORY_LIMIT

if TYPE_CHECKING:
    from tasks.sources import Source

app = typer.Typer(
    help="Daily top-K recommendations inside your warehouse.\n\n"
    "Start with `almanac demo`: it makes a small synthetic shop, publishes lists for it and shows where to query them. "
    "Then point `almanac run` at your own files.\n\n"
    "Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 the data was refused and nothing published was changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(sources, name="sources")
app.command("backtest")(run_backtest)
app.command()(status)
for command in (backfill, models, promote, rollback, serve):
    app.command()(command)
app.command("forget-user")(forget_user)
FATES = ("loaded", "unchanged", "excluded", "deferred", "quarantined")


@app.command()
def run(
    source: Annotated[str, typer.Option(help="A shipped source (see `almanac sources`) or a folder with SELECTs.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    as_of: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Only what is dated before this day counts.")],
    home: Home = DEFAULT_HOME,
    top_k: TopK = 20,
    device: Device = "cpu",
    memory_limit: Annotated[
        str, typer.Option(help="Most memory DuckDB takes; it spills to disk beyond.")
    ] = MEMORY_LIMIT,
    temp_directory: Annotated[Path | None, typer.Option(help="Where DuckDB spills; default <home>/spill.")] = None,
    models: Models = DAILY_MODELS,
    diversity: Annotated[
        float, typer.Option(min=0, max=0.99, help="How much the rows of a list may not resemble each other.")
    ] = 0.0,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Train on from the model of an earlier date.")
    ] = False,
    retrain: Retrain = "daily",
    known_at: KnownAt = "event",
    publish_anyway: PublishAnyway = False,
    postgres: Postgres = None,
    notify: Notify = "",
    verbose: Verbose = False,
) -> None:
    """Publish the lists of one date: ingest, validate, build the graph, train, judge, score, audit, publish.

    Example: almanac run --source online-retail-ii --input data/online-retail-ii --as-of 2011-08-08
    """
    with reported(verbose):
        given = {
            "source": source,
            "input": input,
            "as_of": as_of.date(),
            "home": home,
            "top_k": top_k,
            "device": device,
            "baselines": rivals(models),
            "diversity": diversity,
            "warm_start": warm_start,
            "retrain": retrain,
            "known_at": known_at,
            "publish_anyway": publish_anyway,
            "postgres": kept(postgres, "ALMANAC_POSTGRES"),
            "notify": tuple(name.strip() for name in notify.split(",") if name.strip()),
        }
        _run(verbose, **given, memory_limit=memory_limit, temp_directory=temp_directory)


@app.command()
def demo(
    home: Home = Path(".almanac-demo"),
    users: Annotated[int, typer.Option(min=10, help="Users of the synthetic shop.")] = 2000,
    items: Annotated[int, typer.Option(min=10, help="Items of the synthetic shop.")] = 600,
    days: Annotated[int, typer.Option(min=60, help="Days of history.")] = 1430,
    seed: Annotated[int, typer.Option(help="The same seed makes the same shop.")] = 7,
    verbose: Verbose = False,
) -> None:
    """Make a synthetic shop in SQL, publish lists for the day after its last, and show a few."""
    from tasks.home import check_request
    from tasks.shop import FIRST_DATE, write_shop
    from tasks.sources import load_source
    from tasks.warehouse import exclusive

    with reported(verbose):
        files = home.resolve() / "landing" / "shop"
        files.mkdir(parents=True, exist_ok=True)
        check_request(home.resolve(), load_source("shop"), files)
        with exclusive(home):
            rows = write_shop(files, users=users, items=items, days=days, seed=seed)
        console.print("A synthetic shop: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))
        _run(verbose, source="shop", input=files, as_of=FIRST_DATE + timedelta(days=days), home=home)
        user = query(home, "select min(user_id) from current_recommendations where reason != 'segment'")[1][0][0]
        _show(user, "for_you", home)


@app.command()
def shop(
    folder: Annotated[Path, typer.Argument(help="Where the Parquet files go.")],
    users: Annotated[int, typer.Option(min=10)] = 2000,
    items: Annotated[int, typer.Option(min=10)] = 600,
    days: Annotated[int, typer.Option(min=60)] = 1430,
    seed: Annotated[int, typer.Option()] = 7,
    verbose: Verbose = False,
) -> None:
    """Write the files of a synthetic shop of any size, to try `almanac run --source shop` on."""
    from tasks.shop import write_shop

    with reported(verbose):
        rows = write_shop(folder, users=users, items=items, days=days, seed=seed)
        say(f"{folder}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))


@app.command()
def show(
    user: Annotated[str, typer.Argument(help="The source's id of the user.")],
    list: Annotated[
        str, typer.Option("--list", help="for_you (repeats allowed) or discover (new items only).")
    ] = "for_you",
    home: Home = DEFAULT_HOME,
    verbose: Verbose = False,
) -> None:
    """Show the newest list of a user, with the reason of each row."""
    with reported(verbose):
        if list not in ("for_you", "discover"):
            raise UsageError(f"no list {list!r}; there are for_you and discover")
        _show(user, list, home)


def main() -> None:
    """Entry point of the console script."""
    app()


def _run(verbose: bool, **options: Any) -> None:
    config = configured(RunConfig, **options)
    source, input_root = ready(config, verbose)
    from flows.daily import daily

    say(f"{config.source} as of {config.as_of}, home {config.home}")
    if left_out := _left_out(source, input_root):
        say(f"left out, for lack of files: {left_out}")
    summary: dict[str, Any] = daily(config)  # pyright: ignore[reportAssignmentType]
    _print_summary(summary, config.home)


def _print_summary(summary: dict[str, Any], home: Path) -> None:
    rows: dict[str, dict[str, int]] = {}
    for table_name, _, fate, _, count in summary["accounting"]:
        counts = rows.setdefault(table_name, dict.fromkeys(FATES, 0))
        counts[fate] += count
    read = Table("rows of", "read", *FATES, title="Rows read")
    for table_name, counts in rows.items():
        read.add_row(table_name, f"{sum(counts.values()):,}", *(f"{count:,}" for count in counts.values()))
    console.print(read)
    for warning in summary["warnings"]:
        what = f" {warning['table_name']}: {warning['rule']}{_measured(warning)}"
        console.print(Text.assemble(("warning", "yellow"), plain(what, 1000)), soft_wrap=True)
    for alarm in summary["alarms"]:
        console.print(Text.assemble(("drift", "yellow"), plain(f" {alarm['message']}", 1000)), soft_wrap=True)
    if summary["metrics"]:
        names = [name for name in summary["metrics"][0] if name not in ("list", "ranker", "k")]
        at = f"@{summary['metrics'][0]['k']}"
        metrics = Table(
            "list", "ranker", *(name + at for name in names), title="Holdouts before the date, full ranking"
        )
        for row in summary["metrics"]:
            metrics.add_row(row["list"], row["ranker"], *(f"{row[name]:.4f}" for name in names))
        console.print(metrics)
    if network := summary.get("network"):
        told = {name: f"{how:g}" if isinstance(how, float) else how for name, how in network["taste"].items()}
        chosen = [f"{network['passes']} passes", *(f"taste in {name} {how}" for name, how in told.items())]
        chosen += [f"no {hop}" for hop in ("facts", "friends") if not network[hop]]
        console.print(f"network: {', '.join(chosen)}")
    for why in summary["why"].values():
        say(f"gate: {why}")
    if stale := [str(as_of) for as_of in summary["stale"] if as_of != summary["as_of"]]:
        say(f"stale, their data have changed since: {', '.join(stale)}; almanac backfill --stale repairs them")
    nodes, published = summary["nodes"], summary["published"]
    if summary["undated"]:
        counts = ", ".join(f"{count:,} {table}" for table, count in summary["undated"].items())
        console.print(f"undated, taken as always known: {counts}")
    console.print(f"{nodes['user_nodes']:,} users, {nodes['item_nodes']:,} items, {nodes['entity_nodes']:,} entities")
    console.print("published: " + ", ".join(f"{count:,} rows {name}" for name, count in published.items()))
    seconds = summary["seconds"]
    console.print("seconds: " + ", ".join(f"{step} {took:.1f}" for step, took in seconds.items()))
    say(f"{sum(seconds.values()):.0f} s in all; query it: {home / 'serving' / 'almanac.duckdb'} (read-only)")


def _measured(result: dict[str, Any]) -> str:
    """How many rows failed an expectation, of how many, or what was found instead."""
    failed, checked, observed = (result.get(name) for name in ("failed", "checked", "observed"))
    rows = f"{failed:,}{f' of {checked:,}' if checked else ''} rows" if failed else ""
    found = f"found {observed}" if observed and observed != str(failed) else ""
    return f" ({', '.join(filter(None, (rows, found)))})" if rows or found else ""


def _left_out(source: Source, input_root: Path) -> str:
    """The SELECTs whose files are not there, with what they lack."""
    lacking = {
        path.relative_to(source.folder): source.missing(path, input_root)
        for paths in source.every_select.values()
        for path in paths
    }
    return ", ".join(f"{path} (no {', '.join(globs)})" for path, globs in lacking.items() if globs)


def _show(user: str, list_name: str, home: Path) -> None:
    names, rows = query(
        home,
        "select rank, item_id, score, model, reason, reason_item_id from current_recommendations"
        " where user_id = $user and list = $list order by rank",
        user=user,
        list=list_name,
    )
    if not rows:
        raise UsageError(f"no list for user {user!r}; ids are the source's own, as in current_recommendations.user_id")
    table = Table(*names, title=Text(f"{list_name} of {plain(user)}"))
    for row in rows:
        told = [f"{value:.3f}" if isinstance(value, float) else str(value or "") for value in row]
        table.add_row(*(Text(plain(text, 300)) for text in told))
    console.print(table)


if __name__ == "__main__":
    main()

"""The `almanac` command line: run a source for a date, look at lists, runs and sources."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from flows.configuration import DEFAULT_HOME, BacktestConfig, RunConfig, SourceConfig
from models.settings import DAILY, MODEL, AblationName, BaselineName, ModelName
from tasks.errors import AlmanacError, UsageError
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
sources = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(sources, name="sources")
console = Console(width=None if sys.stdout.isatty() else 120)
FATES = ("loaded", "unchanged", "excluded", "deferred", "quarantined")

Home = Annotated[Path, typer.Option(help="Folder of warehouse, models and serving files; one per source.")]
Config = TypeVar("Config", bound=SourceConfig)
TopK = Annotated[int, typer.Option(min=1, max=1000, help="Rows per user and list.")]
Device = Annotated[str, typer.Option(help="Torch device of training and scoring: cpu or cuda.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks and Prefect's own log.")]


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
    baselines: Annotated[str, typer.Option(help="What the model has to beat, by name, with commas.")] = ",".join(DAILY),
    diversity: Annotated[
        float, typer.Option(min=0, max=0.99, help="How much the rows of a list may not resemble each other.")
    ] = 0.0,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Train on from the model of an earlier date.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Publish the lists of one date: ingest, validate, build the graph, train, judge, score, audit, publish.

    Example: almanac run --source online-retail-ii --input data/online-retail-ii --as-of 2011-08-08
    """
    with _reported(verbose):
        given = {
            "source": source,
            "input": input,
            "as_of": as_of.date(),
            "home": home,
            "top_k": top_k,
            "device": device,
            "baselines": tuple(name.strip() for name in baselines.split(",")),
            "diversity": diversity,
            "warm_start": warm_start,
        }
        _run(verbose, **given, memory_limit=memory_limit, temp_directory=temp_directory)


@app.command("backtest")
def run_backtest(
    source: Annotated[str, typer.Option(help="A shipped source (see `almanac sources`) or a folder with SELECTs.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    origins: Annotated[str, typer.Option(help="Dates to be judged at, with commas.")] = "",
    every: Annotated[str, typer.Option(help="Or one date each so many days, e.g. 7d, with --from and --to.")] = "",
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first date.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last date at most.")] = None,
    horizon: Annotated[str, typer.Option(help="Days to find, e.g. 7d,28d; default the source's own.")] = "",
    models: Annotated[
        str, typer.Option(help="Models by name with commas; also the words baselines, ablations and all.")
    ] = ",".join((MODEL, *DAILY)),
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model, each with a seed of its own.")] = 1,
    tune: Annotated[bool, typer.Option(help="Search each baseline's settings before the first date.")] = True,
    jobs: Annotated[int | None, typer.Option(min=1, help="Fits side by side; default one per core.")] = None,
    report: Annotated[Path | None, typer.Option(help="The HTML report; default <home>/backtests/<id>.html.")] = None,
    home: Home = DEFAULT_HOME,
    memory_limit: Annotated[
        str, typer.Option(help="Most memory DuckDB takes; it spills to disk beyond.")
    ] = MEMORY_LIMIT,
    verbose: Verbose = False,
) -> None:
    """Judge models at past dates: each sees what a run of that date would see, and is held against what happened next.

    Interrupted, the same command goes on where it was. Results go to `mart.backtests` and one HTML report.

    Example: almanac backtest --source online-retail-ii --input data/online-retail-ii --every 28d
    --from 2011-03-07 --to 2011-08-01 --models almanac,repeat_trend,ease
    """
    with _reported(verbose):
        config = _config(
            BacktestConfig,
            source=source,
            input=input,
            home=home,
            memory_limit=memory_limit,
            origins=_dates(origins, every, first, last),
            horizons=tuple(_days(text) for text in _words(horizon)),
            models=_models(models),
            seeds=seeds,
            tune=tune,
            report=report,
            **({"processes": jobs} if jobs else {}),
        )
        _ready(config, verbose)
        from flows.backtest import rolling

        console.print(f"[bold]{source}[/bold]: {len(config.origins)} origins, {len(config.models)} models, home {home}")
        done: dict[str, Any] = rolling(config)  # pyright: ignore[reportAssignmentType]
        _print_leaderboard(done)


def _dates(origins: str, every: str, first: datetime | None, last: datetime | None) -> tuple[date, ...]:
    """The dates listed, or those from first to last."""
    if origins and not (every or first or last):
        try:
            return tuple(sorted({date.fromisoformat(text) for text in _words(origins)}))
        except ValueError as error:
            raise UsageError(f"--origins takes dates like 2011-08-08, with commas: {error}") from error
    if not (every and first and last) or origins or first > last:
        raise UsageError("name the dates by --origins D1,D2, or by --every 7d --from D1 --to D2")
    step = timedelta(days=_days(every))
    return tuple(first.date() + number * step for number in range((last - first) // step + 1))


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdecimal() or not int(number):
        raise UsageError(f"{text!r} is no number of days; write 7d")
    return int(number)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _models(text: str) -> tuple[str, ...]:
    """Names as listed, each once; a word may stand for a group of them."""
    groups = {"baselines": get_args(BaselineName), "ablations": get_args(AblationName)}
    groups["all"] = (MODEL, *groups["baselines"], *groups["ablations"])
    named = tuple(dict.fromkeys(name for word in _words(text) for name in groups.get(word, (word,))))
    known = get_args(ModelName)
    if unknown := [name for name in named if name not in known]:
        raise UsageError(f"no model {', '.join(map(repr, unknown))}; there are {', '.join((*groups, *known))}")
    return named


def _print_leaderboard(done: dict[str, Any]) -> None:
    """One table per horizon and list, best first, and where the report is."""
    rows = done["leaderboard"]
    for horizon, list_name in dict.fromkeys((row["horizon_days"], row["list"]) for row in rows):
        mine = [row for row in rows if (row["horizon_days"], row["list"]) == (horizon, list_name)]
        title = f"{list_name}, the next {horizon} days: {mine[0]['users']:,} users at {mine[0]['origins']} origins"
        table = Table("model", "NDCG@20", "recall@20", "difference", "95 % by user", "by origin", "CPU s", title=title)
        for row in mine:
            told = ("", "", "")
            if row["difference"] is not None:
                told = (f"{row['difference']:+.4f}", _interval(row, "by_user"), _interval(row, "by_origin"))
            table.add_row(row["model"], f"{row['ndcg']:.4f}", f"{row['recall']:.4f}", *told, f"{row['seconds']:.1f}")
        console.print(table)
    console.print(f"{done['jobs']} fits, {done['measured']} of them now; backtest {done['backtest_id']}")
    _say(f"report: {done['report']}")


def _interval(row: dict[str, Any], kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return "" if low is None else f"{low:+.4f} to {high:+.4f}"


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
    from tasks.runs import check_request
    from tasks.shop import FIRST_DATE, write_shop
    from tasks.sources import load_source
    from tasks.warehouse import exclusive

    with _reported(verbose):
        files = home.resolve() / "landing" / "shop"
        files.mkdir(parents=True, exist_ok=True)
        check_request(home.resolve(), load_source("shop"), files)
        with exclusive(home):
            rows = write_shop(files, users=users, items=items, days=days, seed=seed)
        console.print("A synthetic shop: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))
        _run(verbose, source="shop", input=files, as_of=FIRST_DATE + timedelta(days=days), home=home)
        user = _query(home, "select min(user_id) from current_recommendations where reason != 'segment'")[1][0][0]
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

    with _reported(verbose):
        rows = write_shop(folder, users=users, items=items, days=days, seed=seed)
        console.print(f"{folder}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))


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
    with _reported(verbose):
        if list not in ("for_you", "discover"):
            raise UsageError(f"no list {list!r}; there are for_you and discover")
        _show(user, list, home)


@app.command()
def status(home: Home = DEFAULT_HOME, verbose: Verbose = False) -> None:
    """Show what is served and how the last runs ended."""
    from tasks.runs import recent_runs
    from tasks.warehouse import exclusive

    with _reported(verbose):
        if not (home / "warehouse.duckdb").exists():
            raise UsageError(f"nothing has run in {home} yet; start with `almanac demo` or `almanac run --help`")
        if (home / "serving" / "almanac.duckdb").exists():
            _, rows = _query(home, "select max(as_of), count(*), count(distinct user_id) from current_recommendations")
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


@sources.callback()
def list_sources(context: typer.Context) -> None:
    """List the sources that come with Almanac, or draft one of your own (`almanac sources new --help`)."""
    from tasks.sources import load_source, shipped_names

    if context.invoked_subcommand:
        return
    table = Table("name", "what", "horizon", "repeats", "licence")
    for name in shipped_names():
        source = load_source(name)
        table.add_row(name, source.title, f"{source.horizon_days} d", "yes" if source.repeats else "no", source.licence)
    console.print(table)
    console.print("A source of your own is a folder with interactions.sql and source.toml: --source FOLDER")
    console.print("To draft one from your files: almanac sources new NAME --from FOLDER")


@sources.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the source: letters, digits, - and _.")],
    path: Annotated[Path, typer.Option("--from", help="The folder that holds the files, or one file.")],
    to: Annotated[Path | None, typer.Option(help="The folder to make; default ./NAME.")] = None,
    verbose: Verbose = False,
) -> None:
    """Look at files, draft the SELECTs and the source.toml that read them, and try these on all rows.

    Guesses are marked `-- guessed:` in the files, what only you know `-- choose:`. Nothing that exists is overwritten.

    Example: almanac sources new my-shop --from data/my-shop
    """
    from tasks.draft import draft_source

    with _reported(verbose):
        folder = to or Path(name)
        draft = draft_source(name, path.resolve(), folder)
        files = ", ".join(f"{table}.sql" for table in draft.adapters)
        _say(f"drafted {folder}: {files}, source.toml")
        for file, why in draft.unused.items():
            _say(f"not used: {file}: {why}")
        _say("for you to decide, marked `-- choose:` in the files:")
        for choice in (*draft.choices, "source.toml: licence, time zone, strength of each event type"):
            _say(f"  - {choice}")
        _try(folder, path if path.is_dir() else path.parent)


@sources.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The folder of the source.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    verbose: Verbose = False,
) -> None:
    """Try a source on all rows, without a home: what its SELECTs read, and where each row would go."""
    with _reported(verbose):
        _try(folder, input)


def _try(folder: Path, input: Path) -> None:
    from tasks.draft import try_source

    tried = try_source(folder, input.resolve())
    table = Table("rows of", "file", "fate", "rule", "rows", title="All rows, tried in a home that is thrown away")
    for name, file, fate, rule, count in tried["accounting"]:
        table.add_row(*(Text(plain(text)) for text in (name, file, fate, rule or "", f"{count:,}")))
    console.print(table)
    types = ", ".join(f"{plain(str(kind))} {count:,}" for kind, count in tried["event_types"])
    _say(
        f"events from {tried['first']} to {tried['last']}: {tried['users']:,} users, {tried['items']:,} items; {types}"
    )
    for name, share in tried["refused"].items():
        _say(f"a run would refuse this: {share:.1%} of the rows of {name} are broken, source.toml allows fewer")
    if tried["as_of"] is None:
        _say(
            f"next: make {folder / 'interactions.sql'} give dated events, then: almanac sources check {folder} --input {input}"
        )
        return
    if tried["last"] - tried["nearly_last"] > timedelta(days=7):
        _say(f"999 of 1,000 events are not later than {tried['nearly_last']}; a date close to it may say more")
    command = ["almanac", "run", "--source", _path(folder), "--input", str(input), "--as-of", str(tried["as_of"])]
    _say(
        f"next: decide what is marked, then\n  {shlex.join([*command, '--home', f'.almanac-{folder.resolve().name}'])}"
    )


def _path(folder: Path) -> str:
    """A folder as `--source` takes it for one, and not for a shipped name."""
    return str(folder) if folder.is_absolute() else f"./{folder}"


def _say(text: str) -> None:
    """Prints words of the data as they are: no markup, no line breaks."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the console script."""
    app()


def _run(verbose: bool, **options: Any) -> None:
    config = _config(RunConfig, **options)
    source, input_root = _ready(config, verbose)
    from flows.daily import daily

    console.print(f"[bold]{config.source}[/bold] as of {config.as_of}, home {config.home}")
    if left_out := _left_out(source, input_root):
        _say(f"left out, for lack of files: {left_out}")
    summary: dict[str, Any] = daily(config)  # pyright: ignore[reportAssignmentType]
    _print_summary(summary, config.home)


def _config(kind: type[Config], **options: Any) -> Config:
    """The validated configuration; what is wrong with it is a `UsageError`."""
    try:
        return kind(**options)
    except ValidationError as error:
        raise UsageError("; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())) from error


def _ready(config: SourceConfig, verbose: bool) -> tuple[Source, Path]:
    """The source and its input folder, once home and Prefect are ready for a flow."""
    from tasks.runs import check_request
    from tasks.sources import load_source
    from tasks.warehouse import exclusive

    home = config.home.resolve()
    source, input_root = load_source(config.source), config.input.resolve()
    check_request(home, source, input_root)  # before Prefect takes its time to start
    with exclusive(home):
        prepare_prefect(home, verbose)
    return source, input_root


def prepare_prefect(home: Path, verbose: bool) -> None:
    """Points Prefect at the home for its state; call it before Prefect is first imported."""
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    logger = logging.getLogger("almanac")
    logger.setLevel(logging.INFO)
    logger.addHandler(RichHandler(console=console, show_path=False, show_level=False))
    logger.propagate = False


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
    if summary["metrics"]:
        names = [name for name in summary["metrics"][0] if name not in ("list", "ranker", "k")]
        at = f"@{summary['metrics'][0]['k']}"
        metrics = Table(
            "list", "ranker", *(name + at for name in names), title="Holdouts before the date, full ranking"
        )
        for row in summary["metrics"]:
            metrics.add_row(row["list"], row["ranker"], *(f"{row[name]:.4f}" for name in names))
        console.print(metrics)
    network = summary["network"]
    told = {name: f"{how:g}" if isinstance(how, float) else how for name, how in network["taste"].items()}
    chosen = [f"{network['passes']} passes", *(f"taste in {name} {how}" for name, how in told.items())]
    chosen += [f"no {hop}" for hop in ("facts", "friends") if not network[hop]]
    console.print(f"network: {', '.join(chosen)}")
    for why in summary["why"].values():
        console.print(f"gate: {why}")
    nodes, published = summary["nodes"], summary["published"]
    if summary["undated"]:
        counts = ", ".join(f"{count:,} {table}" for table, count in summary["undated"].items())
        console.print(f"undated, taken as always known: {counts}")
    console.print(f"{nodes['user_nodes']:,} users, {nodes['item_nodes']:,} items, {nodes['entity_nodes']:,} entities")
    console.print("published: " + ", ".join(f"{count:,} rows {name}" for name, count in published.items()))
    seconds = summary["seconds"]
    console.print("seconds: " + ", ".join(f"{step} {took:.1f}" for step, took in seconds.items()))
    console.print(f"{sum(seconds.values()):.0f} s in all; query it: {home / 'serving' / 'almanac.duckdb'} (read-only)")


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
    names, rows = _query(
        home,
        "select rank, item_id, score, model, reason, reason_item_id from current_recommendations"
        " where user_id = $user and list = $list order by rank",
        user=user,
        list=list_name,
    )
    if not rows:
        raise UsageError(f"no list for user {user!r}; ids are the source's own, as in current_recommendations.user_id")
    table = Table(*names, title=f"{list_name} of {user}")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value or "") for value in row))
    console.print(table)


def _query(home: Path, query: str, **parameters: object) -> tuple[list[str], list[tuple]]:
    """Column names and rows from the serving file."""
    from tasks.warehouse import connect

    file = home / "serving" / "almanac.duckdb"
    if not file.exists():
        raise UsageError(f"{home} serves nothing yet; publish first with `almanac run` or `almanac demo`")
    with connect(file.resolve(), read_only=True) as reader:
        reader.execute(query, parameters or None)
        return [column[0] for column in reader.description or ()], reader.fetchall()


@contextmanager
def _reported(verbose: bool) -> Iterator[None]:
    """Turns errors into a message and an exit code; a traceback only with --verbose."""
    try:
        yield
    except Exception as error:
        if verbose:
            raise
        code = error.exit_code if isinstance(error, AlmanacError) else 1
        name = type(error).__name__
        hint = "" if isinstance(error, AlmanacError) else "; run again with --verbose for the traceback"
        Console(stderr=True, soft_wrap=True).print(f"{name}: {error}{hint}", markup=False, highlight=False)
        raise typer.Exit(code) from None


if __name__ == "__main__":
    main()

"""`almanac backfill`, `models`, `promote` and `rollback`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flows.configuration import DEFAULT_HOME, BackfillConfig
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
    ready,
    reported,
    rivals,
    say,
)
from tasks.errors import UsageError
from tasks.files import plain
from tasks.warehouse import MEMORY_LIMIT


def backfill(
    source: Annotated[str, typer.Option(help="A shipped source (see `almanac sources`) or a folder with SELECTs.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first date.")] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last date, included.")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Instead of dates: those published whose data have changed since.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Do published dates again.")] = False,
    retrain: Retrain = "daily",
    known_at: KnownAt = "event",
    jobs: Annotated[int | None, typer.Option(min=1, help="Dates side by side; default one per core.")] = None,
    home: Home = DEFAULT_HOME,
    top_k: TopK = 20,
    device: Device = "cpu",
    memory_limit: Annotated[
        str, typer.Option(help="Most memory DuckDB takes; it spills to disk beyond.")
    ] = MEMORY_LIMIT,
    models: Models = DAILY_MODELS,
    diversity: Annotated[
        float, typer.Option(min=0, max=0.99, help="How much the rows of a list may not resemble each other.")
    ] = 0.0,
    publish_anyway: PublishAnyway = False,
    postgres: Postgres = None,
    notify: Notify = "",
    verbose: Verbose = False,
) -> None:
    """Publish the lists of many dates, as daily runs of them would have: each sees only what is dated before it.

    Published dates are left alone (`--force` does them again); interrupted, the same command goes on where it was.

    Example: almanac backfill --source online-retail-ii --input data/online-retail-ii --from 2011-06-01 --to 2011-07-30
    --retrain weekly
    """
    with reported(verbose):
        config = configured(
            BackfillConfig,
            source=source,
            input=input,
            home=home,
            memory_limit=memory_limit,
            first=first.date() if first else None,
            last=last.date() if last else None,
            stale=stale,
            force=force,
            retrain=retrain,
            known_at=known_at,
            top_k=top_k,
            device=device,
            baselines=rivals(models),
            diversity=diversity,
            publish_anyway=publish_anyway,
            postgres=kept(postgres, "ALMANAC_POSTGRES"),
            notify=tuple(name.strip() for name in notify.split(",") if name.strip()),
            **({"jobs": jobs} if jobs else {}),
        )
        ready(config, verbose)
        from flows.backfill import backfill as publish_dates

        dates = "stale dates" if stale else f"{config.first} to {config.last}"
        say(f"{source}, {dates}, {config.jobs} side by side, home {home}")
        done: dict[str, Any] = publish_dates(config)  # pyright: ignore[reportAssignmentType]
        _print_backfill(done, home)
        if done["held"]:
            raise typer.Exit(3)


def _print_backfill(done: dict[str, Any], home: Path) -> None:
    for as_of, why in done["held"].items():
        say(f"not published: {as_of}: {why}")
    if left := done["left"]:
        say(
            f"left as they are, published or withdrawn: {len(left)} dates, {left[0]} to {left[-1]}; --force does them again"
        )
    if stale := [as_of for as_of in done["found"]["stale"] if as_of not in done["published"]]:
        say(
            f"stale, their data have changed since: {', '.join(map(str, stale))}; almanac backfill --stale repairs them"
        )
    published = done["published"]
    told = f"{len(published)} dates, {published[0]} to {published[-1]}" if published else "nothing"
    say(f"published: {told}; query it: {home / 'serving' / 'almanac.duckdb'} (read-only)")


def models(
    home: Home = DEFAULT_HOME,
    all: Annotated[bool, typer.Option("--all", help="Every version instead of the newest 20.")] = False,
    verbose: Verbose = False,
) -> None:
    """List the trained models: how good on their holdouts, which dates they made, what became of them."""
    from tasks.registry import list_models
    from tasks.warehouse import exclusive

    with reported(verbose):
        _needs_runs(home)
        with exclusive(home):
            rows = list_models(home.resolve())
        table = Table("version", "trained as of", "for_you", "discover", "gate chose", "dates", "last", "state")
        for row in rows if all else rows[:20]:
            ndcg, rankers = json.loads(row["metrics"] or "{}"), json.loads(row["rankers"] or "{}")
            quality = [f"{ndcg.get(name, {}).get('almanac', float('nan')):.4f}" for name in ("for_you", "discover")]
            chosen = ", ".join(dict.fromkeys(rankers.values()))
            dates, last = str(row["dates"] or 0), str(row["last_date"] or "")
            version = Text(plain(row["model_version"], 300))
            table.add_row(version, str(row["trained_as_of"]), *quality, chosen, dates, last, Text(_state(row)))
        console.print(table)
        if len(rows) > 20 and not all:
            say(f"{len(rows) - 20} more: almanac models --all --home {home}")
        say("for_you, discover: NDCG of the model itself on the holdouts before its date")


def _state(row: dict[str, Any]) -> str:
    if row["demoted_at"]:
        return f"demoted {row['demoted_at']:%Y-%m-%d}: {row['demoted_because']}"
    return f"promoted from {row['promoted_as_of']} on" if row["promoted_at"] else ""


def promote(
    version: Annotated[str, typer.Argument(help="A version of `almanac models`.")],
    home: Home = DEFAULT_HOME,
    verbose: Verbose = False,
) -> None:
    """Put a model in charge of the coming runs that do not train: those with --retrain weekly or never."""
    from flows.steps import utc_now
    from tasks.registry import promote as put_in_charge
    from tasks.status import write_status
    from tasks.warehouse import exclusive

    with reported(verbose):
        _needs_runs(home)
        with exclusive(home):
            since = put_in_charge(home.resolve(), version, utc_now())
            write_status(home.resolve(), utc_now())
        say(f"{version} scores the dates after {since} until another model is trained: --retrain weekly or never")


def rollback(
    to: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The published date to go back to; default the one before the newest."),
    ] = None,
    history_days: Annotated[int, typer.Option(min=1, help="Days of lists in the serving file.")] = 90,
    home: Home = DEFAULT_HOME,
    postgres: Postgres = None,
    verbose: Verbose = False,
) -> None:
    """Withdraw the newest publications; readers go on with the date before, in the file and in PostgreSQL.

    What is withdrawn stays so until its date is run again, and its models score no other date.
    """
    with reported(verbose):
        _needs_runs(home)
        from flows.secrets import resolve
        from flows.steps import utc_now
        from tasks.publish import rollback as withdraw
        from tasks.status import write_status
        from tasks.warehouse import exclusive

        with exclusive(home):
            day = to.date() if to else None
            withdrawn = withdraw(home.resolve(), day, utc_now(), history_days, resolve(postgres))
            write_status(home.resolve(), utc_now())
        say(f"withdrawn: {', '.join(map(str, withdrawn))}")
        say(f"to publish one of them again: almanac run --as-of {withdrawn[0]} …, once its cause is mended")


def _needs_runs(home: Path) -> None:
    from tasks.home import migrate

    if not (home / "warehouse.duckdb").exists():
        raise UsageError(f"nothing has run in {home} yet; start with `almanac demo` or `almanac run --help`")
    migrate(home.resolve())

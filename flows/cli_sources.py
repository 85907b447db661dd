"""`almanac sources`: what is shipped, and drafts of one's own."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.terminal import Verbose, console, reported, say
from tasks.files import plain

sources = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


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

    with reported(verbose):
        folder = to or Path(name)
        draft = draft_source(name, path.resolve(), folder)
        files = ", ".join(f"{table}.sql" for table in draft.adapters)
        say(f"drafted {folder}: {files}, source.toml")
        for file, why in draft.unused.items():
            say(f"not used: {file}: {why}")
        say("for you to decide, marked `-- choose:` in the files:")
        for choice in (*draft.choices, "source.toml: licence, time zone, strength of each event type"):
            say(f"  - {choice}")
        _try(folder, path if path.is_dir() else path.parent)


@sources.command()
def check(
    folder: Annotated[Path, typer.Argument(help="The folder of the source.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    verbose: Verbose = False,
) -> None:
    """Try a source on all rows, without a home: what its SELECTs read, and where each row would go."""
    with reported(verbose):
        _try(folder, input)


def _try(folder: Path, input: Path) -> None:
    from tasks.draft import try_source

    tried = try_source(folder, input.resolve())
    table = Table("rows of", "file", "fate", "rule", "rows", title="All rows, tried in a home that is thrown away")
    for name, file, fate, rule, count in tried["accounting"]:
        table.add_row(*(Text(plain(text)) for text in (name, file, fate, rule or "", f"{count:,}")))
    console.print(table)
    types = ", ".join(f"{plain(str(kind))} {count:,}" for kind, count in tried["event_types"])
    say(f"events from {tried['first']} to {tried['last']}: {tried['users']:,} users, {tried['items']:,} items; {types}")
    for name, share in tried["refused"].items():
        say(f"a run would refuse this: {share:.1%} of the rows of {name} are broken, source.toml allows fewer")
    if tried["as_of"] is None:
        say(
            f"next: make {folder / 'interactions.sql'} give dated events, then: almanac sources check {folder} --input {input}"
        )
        return
    if tried["last"] - tried["nearly_last"] > timedelta(days=7):
        say(f"999 of 1,000 events are not later than {tried['nearly_last']}; a date close to it may say more")
    command = ["almanac", "run", "--source", _path(folder), "--input", str(input), "--as-of", str(tried["as_of"])]
    say(f"next: decide what is marked, then\n  {shlex.join([*command, '--home', f'.almanac-{folder.resolve().name}'])}")


def _path(folder: Path) -> str:
    """A folder as `--source` takes it for one, and not for a shipped name."""
    return str(folder) if folder.is_absolute() else f"./{folder}"

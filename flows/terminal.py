"""What every command shares: the console, options, Prefect made ready, errors as messages with an exit code."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.request import urlopen

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.logging import RichHandler

from flows.configuration import SourceConfig
from models.settings import DAILY
from tasks.errors import AlmanacError, UsageError, harmless

if TYPE_CHECKING:
    from tasks.sources import Source

console = Console(width=None if sys.stdout.isatty() else 120)
Home = Annotated[Path, typer.Option(help="Folder of warehouse, models and serving files; one per source.")]
Config = TypeVar("Config", bound=SourceConfig)
TopK = Annotated[int, typer.Option(min=1, max=1000, help="Rows per user and list.")]
Device = Annotated[str, typer.Option(help="Torch device of training and scoring: cpu or cuda.")]
Retrain = Annotated[
    Literal["daily", "weekly", "never"],
    typer.Option(help="Train for each date, once the newest model is a week old, or not at all."),
]
Models = Annotated[
    str,
    typer.Option(
        "--models",
        "--baselines",
        help="Judged beside Almanac's model, by name, with commas; the holdouts choose what serves each list.",
    ),
]
DAILY_MODELS = ",".join(DAILY)
KnownAt = Annotated[
    Literal["event", "load"],
    typer.Option(help="event: all rows dated before the date; load: of these, what had arrived by then."),
]
Postgres = Annotated[
    str | None,
    typer.Option(
        envvar="ALMANAC_POSTGRES",
        show_envvar=True,
        help="PostgreSQL to publish to as well: a URL, env:NAME or secret:BLOCK of Prefect.",
    ),
]
PublishAnyway = Annotated[
    bool, typer.Option("--publish-anyway", help="Publish lists that break a limit of the gate (docs/gate.md).")
]
Notify = Annotated[str, typer.Option(help="Prefect notification blocks that are told of trouble, with commas.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks and Prefect's own log.")]


@contextmanager
def reported(verbose: bool) -> Iterator[None]:
    """Turns errors into a message and an exit code; a traceback only with --verbose."""
    try:
        yield
    except Exception as error:
        code = error.exit_code if isinstance(error, AlmanacError) else 1
        hint = "" if isinstance(error, AlmanacError) else "; run again with --verbose for the traceback"
        told = traceback.format_exc() if verbose else f"{type(error).__name__}: {error}{hint}"
        Console(stderr=True, soft_wrap=True).print(harmless(told), markup=False, highlight=False)
        raise typer.Exit(code) from None


def configured(kind: type[Config], **options: Any) -> Config:
    """The validated configuration; what is wrong with it is a `UsageError`."""
    try:
        return kind(**options)
    except ValidationError as error:
        said = ((problem["loc"][:1], problem["msg"].removeprefix("Value error, ")) for problem in error.errors())
        told = (": ".join([*map(str, option), message]) for option, message in said)
        raise UsageError("; ".join(told)) from error


def ready(config: SourceConfig, verbose: bool) -> tuple[Source, Path]:
    """The source and its input folder, once home and Prefect are ready for a flow."""
    from tasks.home import check_request
    from tasks.sources import load_source
    from tasks.warehouse import exclusive

    home = config.home.resolve()
    source, input_root = load_source(config.source), config.input.resolve()
    check_request(home, source, input_root)  # before Prefect takes its time to start
    with exclusive(home):
        prepare_prefect(home, verbose)
    return source, input_root


def served_at(home: Path) -> str | None:
    """The API of the server of an `almanac serve` on the home, if one runs and can be reached from here."""
    with suppress(OSError), (home / "prefect" / "serve.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            api = f"{lock.read()}/api"
            with urlopen(f"{api}/health", timeout=5):
                return api
    return None


def prepare_prefect(home: Path, verbose: bool) -> None:
    """Points Prefect at the home for its state, and at the server of the home if one runs; before Prefect is first imported."""
    from tasks.warehouse import storing

    os.umask(os.umask(0o077) | 0o002)  # what this process makes, not everybody can write
    home.mkdir(parents=True, exist_ok=True)
    folder = home / "prefect"
    with storing(home):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)  # its database holds parameters and samples of lists
    os.environ.setdefault("PREFECT_HOME", str(folder))
    if "PREFECT_API_URL" not in os.environ and (api := served_at(home)):
        os.environ["PREFECT_API_URL"] = api
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "CRITICAL")
    logger = logging.getLogger("almanac")
    logger.setLevel(logging.INFO)
    logger.addHandler(RichHandler(console=console, show_path=False, show_level=False))
    logger.propagate = False


def query(home: Path, query: str, **parameters: object) -> tuple[list[str], list[tuple]]:
    """Column names and rows from the serving file."""
    from tasks.warehouse import connect

    file = home / "serving" / "almanac.duckdb"
    if not file.exists():
        raise UsageError(f"{home} serves nothing yet; publish first with `almanac run` or `almanac demo`")
    with connect(file.resolve(), read_only=True) as reader:
        reader.execute(query, parameters or None)
        return [column[0] for column in reader.description or ()], reader.fetchall()


def say(text: str) -> None:
    """Prints words of the data as they are: no markup, no line breaks, nothing that a terminal acts on."""
    console.print(harmless(text), markup=False, highlight=False, soft_wrap=True)


def rivals(models: str) -> tuple[str, ...]:
    """The names of `--models`; Almanac's own model is always judged and need not be named."""
    return tuple(name for name in map(str.strip, models.split(",")) if name and name != "almanac")

"""`almanac serve`: a Prefect server, a runner and the deployments of one source, in one command."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from flows.configuration import DEFAULT_HOME, RunConfig
from flows.deployments import Schedules, stated
from flows.secrets import kept
from flows.terminal import (
    Device,
    Home,
    Notify,
    Postgres,
    Retrain,
    TopK,
    Verbose,
    configured,
    prepare_prefect,
    reported,
    say,
)
from models.settings import DAILY
from tasks.errors import RunError, UsageError
from tasks.warehouse import MEMORY_LIMIT

RUNNER_ENDS_SECONDS = 60  # Prefect gives a cancelled run 30 s before it kills it
SERVER_ENDS_SECONDS = 10


def serve(
    source: Annotated[str, typer.Option(help="A shipped source (see `almanac sources`) or a folder with SELECTs.")],
    input: Annotated[Path, typer.Option(help="The folder that holds the source's files.")],
    home: Home = DEFAULT_HOME,
    cron: Annotated[str, typer.Option(help="When lists are made, in the source's time zone.")] = "0 5 * * *",
    retrain: Retrain = "weekly",
    retrain_day: Annotated[str, typer.Option(help="The weekday of a weekly training.")] = "monday",
    health_cron: Annotated[str, typer.Option(help="When late and failed runs are looked for.")] = "0 12 * * *",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of Prefect's server and its UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Where the server listens; other than 127.0.0.1 it is open to the network.")
    ] = "127.0.0.1",
    top_k: TopK = 20,
    device: Device = "cpu",
    memory_limit: Annotated[
        str, typer.Option(help="Most memory DuckDB takes; it spills to disk beyond.")
    ] = MEMORY_LIMIT,
    temp_directory: Annotated[Path | None, typer.Option(help="Where DuckDB spills; default <home>/spill.")] = None,
    baselines: Annotated[str, typer.Option(help="What the model has to beat, by name, with commas.")] = ",".join(DAILY),
    diversity: Annotated[float, typer.Option(help="0 to 1: how much rows of a list may not resemble each other.")] = 0,
    warm_start: Annotated[bool, typer.Option("--warm-start", help="Train on from an earlier model.")] = False,
    postgres: Postgres = None,
    notify: Notify = "",
    verbose: Verbose = False,
) -> None:
    """Run a source day by day: Prefect's server with its UI, a runner, and deployments for the day, many dates and health.

    Ctrl-C or SIGTERM cancels the run in progress and ends everything with exit code 0; what was published stays.
    """
    with reported(verbose):
        config = configured(
            RunConfig,
            source=source,
            input=input.resolve(),
            home=home.resolve(),
            top_k=top_k,
            device=device,
            memory_limit=memory_limit,
            temp_directory=temp_directory,
            baselines=tuple(name.strip() for name in baselines.split(",")),
            diversity=diversity,
            warm_start=warm_start,
            postgres=kept(postgres, "ALMANAC_POSTGRES"),
            notify=tuple(name.strip() for name in notify.split(",") if name.strip()),
        )
        given = {"cron": cron, "retrain": retrain, "retrain_day": retrain_day, "health_cron": health_cron}
        schedules = configured(Schedules, **given)  # pyright: ignore[reportArgumentType]
        code = _serve(config, schedules, host, port)
    raise typer.Exit(code)


def _serve(config: RunConfig, schedules: Schedules, host: str, port: int) -> int:
    """Starts server and runner, waits for a signal or for one of the two to end, ends both; the exit code."""
    from tasks.home import check_request
    from tasks.sources import load_source

    check_request(config.home, load_source(config.source), config.input)
    for name in ("daily", "retrain"):
        schedules.of(name)
    prepare_prefect(config.home, verbose=True)
    url, log = _url(host, port), config.home / "prefect" / "server.log"
    with _one_per_home(config.home, url) as lock, _signals() as asked:
        _check_port(host, port)
        say(f"Starting Prefect's server at {url} (its log: {log})")
        environment = _environment(url)
        with log.open("w") as output:
            server = _start("server", environment, lock, output, "--host", host, "--port", str(port))
        told = json.dumps({"config": stated(config, RunConfig), "schedules": schedules.model_dump(), "url": url})
        runner = _start("runner", environment, lock, None, told)
        try:
            is_asked = _wait(asked, server, runner)
            if is_asked:
                say("Ending: a run in progress is cancelled. Once more to end at once")
        finally:
            _end(runner, RUNNER_ENDS_SECONDS, asked)
            server_code = server.poll()
            _end(server, SERVER_ENDS_SECONDS, asked)
    if is_asked:
        return 0
    if server_code is not None:
        raise RunError(f"the Prefect server ended by itself (code {server_code}); {log} tells why. Then serve again")
    if runner.returncode not in (1, 2, 3):  # with these it has told why
        raise RunError(f"the runner ended by itself (code {runner.returncode}), and all with it; serve again")
    return runner.returncode


def _url(host: str, port: int) -> str:
    """How this machine reaches the server."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _environment(url: str) -> dict[str, str]:
    """Of server, runner and runs. What is set already, such as the URL that browsers elsewhere reach, stays."""
    wanted = {
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url,  # no other web site may drive a server that has no password
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "almanac",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",  # a folder called flows where the command is started must not be taken for ours
    }
    return wanted | os.environ | {"PREFECT_API_URL": f"{url}/api"}


@contextmanager
def _one_per_home(home: Path, url: str) -> Iterator[int]:
    """Holds `<home>/prefect/serve.lock`, which tells the URL; the two processes inherit it, so it is held while one lives."""
    with (home / "prefect" / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UsageError(f"{home} is served already, at {lock.read()}; end that `almanac serve` first") from error
        lock.truncate(0)
        lock.write(url)
        lock.flush()
        yield lock.fileno()


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # < 0: no such host
        raise UsageError(
            f"port {port} of {host} cannot be used ({why}); choose another with --port or --host"
        ) from error


@contextmanager
def _signals() -> Iterator[threading.Semaphore]:
    """Counts Ctrl-C, SIGTERM and a closed terminal instead of dying of them."""
    asked = threading.Semaphore(0)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Any] = {number: signal.signal(number, lambda *_: asked.release()) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    role: str, environment: dict[str, str], lock: int, output: IO[str] | None, *arguments: str
) -> subprocess.Popen[bytes]:
    """A process of `flows.served` in a session of its own, so that Ctrl-C reaches `almanac serve` alone."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.served", role, *arguments],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output and subprocess.STDOUT,
        env=environment,
        pass_fds=(lock,),
        start_new_session=True,
    )


def _wait(asked: threading.Semaphore, *processes: subprocess.Popen[bytes]) -> bool:
    """Until a signal comes (true) or a process ends (false)."""
    while all(process.poll() is None for process in processes):
        if asked.acquire(timeout=0.5):
            return True
    return False


def _end(process: subprocess.Popen[bytes], seconds: float, asked: threading.Semaphore) -> None:
    """Asks the process to end; after that time, or a further signal, kills it, and in any case all that it left behind."""
    process.terminate()
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not asked.acquire(timeout=0.2):
        pass
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

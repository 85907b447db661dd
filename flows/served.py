"""The two processes that `almanac serve` watches: `python -m flows.served server …` and `python -m flows.served runner …`.

Each ends when the pipe on its standard input does, so neither outlives `almanac serve`, however that ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from flows.configuration import RunConfig
from flows.deployments import Schedules, deployments
from tasks.errors import AlmanacError, RunError

START_SECONDS = 180


def main() -> None:
    """Runs the process that the command line names."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    role, *arguments = sys.argv[1:]
    if role == "server":
        sys.argv[:] = ["prefect", "server", "start", *arguments]
        runpy.run_module("prefect", run_name="__main__")
        return
    try:
        asyncio.run(run_what_is_due(**json.loads(arguments[0])))
    except AlmanacError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    os.read(0, 1)  # comes back at the end of the pipe; sys.stdin would hold a lock when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


async def run_what_is_due(config: dict[str, Any], schedules: dict[str, Any], url: str) -> None:
    """Gives the server the deployments and runs what is due or asked for in the UI, until told to stop."""
    from prefect.runner import Runner

    # A runner makes runner_storage in the temporary folder; the one in /tmp may belong to another user.
    tempfile.tempdir = os.environ["PREFECT_HOME"]
    queues = deployments(RunConfig.model_validate(config), Schedules.model_validate(schedules))
    await _server_is_up(url)
    await _close_interrupted_runs()
    runners = [Runner(name=f"almanac-{queue}", limit=1, pause_on_shutdown=False) for queue in queues]
    for runner, members in zip(runners, queues.values(), strict=True):
        for deployment in members:
            await runner.aadd_deployment(deployment)
    stop = asyncio.Event()
    running = [asyncio.create_task(runner.start()) for runner in runners]
    while not all(runner.started for runner in runners):
        await asyncio.sleep(0.05)
    for number in (signal.SIGINT, signal.SIGTERM):  # once started, since a runner sets a handler of its own
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _tell(config["source"], queues, url)
    await asyncio.wait([*running, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(runner.astop() for runner in runners))
    await asyncio.gather(*running)


async def _server_is_up(url: str) -> None:
    from prefect import get_client

    deadline = time.monotonic() + START_SECONDS
    async with get_client() as client:
        while error := await client.api_healthcheck():
            if time.monotonic() > deadline:
                raise RunError(f"the Prefect server did not answer at {url} within {START_SECONDS} s: {error}")
            await asyncio.sleep(0.2)


async def _close_interrupted_runs() -> None:
    """Marks as crashed what a power cut left open: one `almanac serve` a home runs them all, so they cannot be alive."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    is_open = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}})
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=is_open):
            await client.set_flow_run_state(run.id, Crashed(message="`almanac serve` was killed with it"), force=True)


def _tell(source: str, queues: dict[str, list[Any]], url: str) -> None:
    print(f"{source} is served. UI: {url}  Ctrl-C ends it", flush=True)
    for deployment in (one for members in queues.values() for one in members):
        due = [f"{one.schedule.cron} {one.schedule.timezone}" for one in deployment.schedules or []]
        print(f"  {deployment.name:9} {' '.join(due) or 'by hand':32} {deployment.description}", flush=True)


if __name__ == "__main__":
    main()

"""A Prefect server of one's own, for the runs of `benchmarks.chaos`."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.chaos_process import Running, execute, python


@contextmanager
def prefect_server(folder: Path) -> Iterator[tuple[str, Running]]:
    """A Prefect server in a process of its own; gives its URL."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = python("prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui")
    server = execute(command, folder / "log", **settings)
    url = f"http://127.0.0.1:{port}/api"
    try:
        server.until(lambda: answers(url), "the server answered", pause=0.2)
        yield url, server
    finally:
        if server.code is None:
            server.send(signal.SIGCONT)
            server.send(signal.SIGINT)
            with suppress(TimeoutError):  # which kills it
                server.wait(20)


def answers(url: str) -> bool:
    """Whether a Prefect server is there."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False

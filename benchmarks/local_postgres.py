"""A PostgreSQL server of one's own for as long as a `with` lasts: in a temporary folder, on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adbc_driver_postgresql import dbapi

PASSWORD = "p%w/d@1:ä"  # signs that a URL must escape
ESCAPED = "p%25w%2Fd%401%3A%C3%A4"
UNPRIVILEGED: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
START_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A running server; `admin` is its superuser, who is let in through the socket without a password."""

    folder: Path
    port: int
    process: subprocess.Popen[Any]

    def url(self, database: str, user: str = "admin", password: str | None = None) -> str:
        """By TCP with a password, or through the socket as whom you say."""
        if password is None:
            return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres", user: str = "admin") -> list[tuple[Any, ...]]:
        """Runs statements one by one, each committed; returns the rows of the last where it gives any."""
        with (
            dbapi.connect(self.url(database, user), autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def binaries() -> Path | None:
    """The folder of initdb and postgres: on the path, or where Debian and its kin put the newest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def local_postgres() -> Iterator[Server]:
    """Starts the server, as an unprivileged user where the caller is root, whom PostgreSQL refuses; stops it at the end."""
    programs = binaries()
    if not programs:
        raise FileNotFoundError("no initdb: install PostgreSQL's server, e.g. the package postgresql")
    as_user = UNPRIVILEGED if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="almanac-postgres-"))
    try:
        if as_user:
            shutil.chown(folder, as_user["user"], as_user["group"])
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", "admin", "--encoding=UTF8", "--locale=C.UTF-8"]
        initdb += ["--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        port = _free_port()
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            command = [programs / "postgres", "-D", folder / "data", *options]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
        try:
            server = Server(folder, port, process)
            _wait(server)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # "immediate": nothing of it is needed any more
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.execute("select 1")
            return
        except dbapi.Error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((server.folder / "log").read_text()) from None
            time.sleep(0.05)

"""Faults of `benchmarks.chaos`: PostgreSQL goes away, or says no, before a run mirrors its lists or in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adbc_driver_postgresql import dbapi

from benchmarks.chaos_fault import Fault
from benchmarks.chaos_process import DidNotHappen, Running
from benchmarks.chaos_scene import VIEWS, State, digest
from benchmarks.chaos_stage import Stage
from benchmarks.local_postgres import UNPRIVILEGED, Server, local_postgres
from tasks.postgres import LOCK, mirror
from tasks.warehouse import connect

MOMENTS = {  # what the mirror waits for while the harness holds it
    "before its turn": f"select pg_advisory_xact_lock({LOCK})",
    "before it copies": "lock table almanac_tables.held in access exclusive mode",
    "amid copying": "lock table almanac_tables.reach in access exclusive mode",
}
WAITING = "select pid from pg_stat_activity where application_name = 'almanac' and wait_event_type = 'Lock'"


def faults() -> Iterator[Fault]:
    """Each moment of a mirror with each way to end it, and what may be wrong before it begins."""
    for moment in MOMENTS:
        for name, end in (("server killed", _kill), ("connection cut", _cut), ("run killed", _kill_run)):
            inject = partial(amid, moment, end)
            yield Fault("PostgreSQL", f"{name} {moment}", inject, needs=("initdb",))
    yield Fault("PostgreSQL", "not there", not_there, needs=("initdb",))
    yield Fault("PostgreSQL", "the role may not write any more", not_allowed, needs=("initdb",))
    yield Fault("PostgreSQL", "another database under the name", emptied, needs=("initdb",))


@dataclass
class Database:
    """A server of the stage's own with the lists that the home had published."""

    server: Server
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """All its processes end at once, as after a power cut."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def start(self) -> None:
        """Brings it up again where it is down."""
        if self.process.poll() is None:
            return
        as_user = UNPRIVILEGED if os.geteuid() == 0 else {}
        with (self.server.folder / "log").open("ab") as log:
            command = self.server.process.args
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.server.folder, **as_user)  # pyright: ignore
                while self.process.poll() is None and time.monotonic() < deadline:
                    with suppress(dbapi.Error):
                        self.server.execute("select 1")
                        return
                    time.sleep(0.1)
                (self.server.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
                time.sleep(0.2)  # its helpers of before are on their way out
        raise RuntimeError((self.server.folder / "log").read_text()[-1000:])

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()

    @property
    def url(self) -> str:
        return self.server.url("lists", "almanac")


def prepared(stage: Stage) -> Database:
    """The server, with a role that owns its database, filled with what the home serves."""
    stack = ExitStack()
    server = stack.enter_context(local_postgres())
    stage.ends.append(stack.close)
    database = Database(server, server.process)
    stage.ends.append(database.end)
    stage.undo.append(database.start)
    server.execute("create role almanac login", "create database lists owner almanac")
    stage.postgres = database.url
    mirror((stage.serving / "almanac.duckdb").resolve(), database.url)
    stage.mirrored = partial(mirrored, database.url, stage.scene.homes[stage.goal])
    assert stage.mirrored() == stage.scene.states[stage.published]
    return database


def amid(moment: str, end, stage: Stage) -> str:
    """The mirror is held at the moment by a lock of ours, then it or its server ends."""
    database = prepared(stage)
    holder = dbapi.connect(database.server.url("lists"))
    try:
        with holder.cursor() as cursor:
            cursor.execute(MOMENTS[moment])
        running = stage.run()
        found = running.until(partial(_waiting, database), f"the mirror waited {moment}", pause=0.05)
        told = end(database, running, found[0][0])
    finally:
        with suppress(dbapi.Error):
            holder.close()
    code = running.wait()
    # a run makes good at its start what an earlier one missed: a connection cut there is no end of it
    if code == 0 and end is not _cut:
        raise DidNotHappen("the run went on to its end")
    database.start()
    return f"{told} {moment}; the run ended with {code}: {_said(running)}"


def not_there(stage: Stage) -> str:
    prepared(stage).kill()
    return _failed(stage)


def not_allowed(stage: Stage) -> str:
    database = prepared(stage)
    table = "almanac_tables.recommendations"
    database.server.execute(f"alter table {table} owner to admin", database="lists")
    stage.undo.append(partial(database.server.execute, f"alter table {table} owner to almanac", database="lists"))
    return _failed(stage)


def emptied(stage: Stage) -> str:
    """Someone has made the database anew: the run fills it."""
    database = prepared(stage)
    database.server.execute("drop database lists", "create database lists owner almanac")
    running = stage.run()
    code = running.wait()
    assert code == 0, running.text()[-500:]
    assert stage.mirrored and stage.mirrored() == stage.scene.states[stage.goal], "the new database was not filled"
    return "the database was empty, the run filled it"


def mirrored(url: str, home: Path) -> State:
    """What a reader of PostgreSQL sees now, all views at one moment, in the types of the serving file."""
    file = (home / "serving" / "almanac.duckdb").resolve()
    seen: State = {}
    with dbapi.connect(url) as session, session.cursor() as cursor, connect(file, read_only=True) as reader:
        cursor.execute("set transaction isolation level repeatable read")
        for view, columns in VIEWS.items():
            kinds = reader.execute(f"describe {view}").fetchall()
            casts = ", ".join(f'cast("{name}" as {kind}) as "{name}"' for name, kind, *_ in kinds)
            cursor.execute(f"select * from almanac.{view}")
            reader.register("mirrored", cursor.fetch_arrow_table())
            seen[view] = digest(reader, f"(select {casts} from mirrored)", columns)
    return seen


def _waiting(database: Database) -> list[tuple[int]]:
    return database.server.execute(WAITING)  # pyright: ignore[reportReturnType]


def _kill(database: Database, running: Running, pid: int) -> str:
    database.kill()
    return "the server was killed"


def _cut(database: Database, running: Running, pid: int) -> str:
    assert database.server.execute(f"select pg_terminate_backend({pid})") == [(True,)]
    return f"connection {pid} was cut"


def _kill_run(database: Database, running: Running, pid: int) -> str:
    running.send(signal.SIGKILL)
    running.must_end_by(signal.SIGKILL)
    return "the run was killed"


def _failed(stage: Stage) -> str:
    running = stage.run()
    code = running.wait()
    if code != 1 or "PostgreSQL" not in running.text():
        raise DidNotHappen(f"ended with {code}: {running.text()[-500:]}")
    return f"{running.last_step()}: {_said(running)}"


def _said(running: Running) -> str:
    lines = [line for line in running.text().splitlines() if "Error" in line]
    return lines[-1][:200] if lines else "no error"

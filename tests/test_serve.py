"""`almanac serve`: deployments that share the days, runs through the server, an end that leaves nothing behind; secrets."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from flows.configuration import RunConfig
from flows.deployments import Schedules, stated
from flows.secrets import kept, masked, resolve
from tasks.errors import RunError, UsageError
from tests.conftest import Published
from tests.world import write_world

SERVE = [sys.executable, "-m", "flows.cli", "serve"]
SMALL = {"users": 60, "items": 40, "days": 200}
FAST = {"epochs": 1, "dimension": 16, "snapshot_count": 5}
AS_OF = "2021-07-20"  # the day after the last of the small shop
DAYS_OF_WEEK = 4  # the field of a cron line
PASSWORD = "pass/word"
URL = "postgresql://almanac:pass%2Fword@localhost/lists"


@dataclass
class Life:
    """What was seen of one `almanac serve`, from its start to Ctrl-C in the middle of a run."""

    home: Path
    url: str
    deployments: dict[str, Any] = field(default_factory=dict)
    finished: dict[str, Any] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    due: set[str] = field(default_factory=set)
    second: subprocess.CompletedProcess[str] | None = None
    beside: set[str] = field(default_factory=set)  # flow runs that the server knows after `almanac run` in a terminal
    beside_output: str = ""  # of that run
    processes: dict[int, str] = field(default_factory=dict)
    interrupted: str = ""
    exit_code: int | None = None
    output: str = ""

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST with a body, of the server's API; asked again, as Prefect's client does, while that is busy (503)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", data, {"Content-Type": "application/json"})

        def answer() -> list[Any]:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return [json.load(response)]
            except urllib.error.HTTPError as problem:
                if problem.code != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise
                return []

        return until(answer, 30)[0]

    def start_run(self, as_of: str) -> str:
        """Asks for a run of `daily` as the UI's form does; its id."""
        daily = self.deployments["daily"]
        config = daily["parameters"]["config"] | {"as_of": as_of, "model": FAST}
        body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        return self.call(f"deployments/{daily['id']}/create_flow_run", body)["id"]

    def state(self, run_id: str) -> str:
        return self.call(f"flow_runs/{run_id}")["state_type"]


def bare_environment() -> dict[str, str]:
    """As on a machine where Prefect was never set up."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}


def until(seen: Callable[[], Any], seconds: float = 180) -> Any:
    """What `seen` gives once that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := seen():
            return found
        time.sleep(0.3)
    raise AssertionError("it did not come to pass")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def family(pid: int) -> dict[int, str]:
    """Every process below `pid` and when it started, as the kernel counts."""
    found: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(folder.name)] = (int(fields[1]), fields[19])
    below = {pid}
    while more := {one for one, (parent, _) in found.items() if parent in below and one not in below}:
        below |= more
    return {one: found[one][1] for one in below if one != pid}


def started_at(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("served")
    write_world(folder / "input", **SMALL)
    port = free_port()
    life = Life(folder / "home", f"http://127.0.0.1:{port}")
    options = ["--source", "shop", "--input", folder / "input", "--home", life.home, "--port", port]
    command = [*SERVE, *map(str, options), "--postgres", URL, "--cron", "30 4 * * *"]
    output = folder / "output"
    with output.open("w") as written:
        served = subprocess.Popen(command, env=bare_environment(), stdout=written, stderr=written)
    try:
        until(lambda: "Ctrl-C ends it" in output.read_text() or served.poll() is not None)
        assert served.poll() is None, output.read_text()
        life.deployments = {one["name"]: one for one in life.call("deployments/filter", {})}
        life.second = subprocess.run(
            command, env=bare_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        run = [
            *SERVE[:-1],
            "run",
            *map(str, options[:-2]),
            "--as-of",
            "2021-07-18",
            "--models",
            "popularity",
            "--verbose",
        ]
        ran = subprocess.run(run, env=bare_environment(), capture_output=True, text=True, timeout=300, check=True)
        life.beside_output = ran.stdout + ran.stderr
        life.beside = {
            one["name"]
            for one in life.call("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
        }
        life.deployments["daily"]["parameters"]["config"].pop("postgres")  # there is no such server to publish to
        run_id = life.start_run(AS_OF)
        until(lambda: life.state(run_id) in ("COMPLETED", "FAILED", "CRASHED"))
        life.finished = life.call(f"flow_runs/{run_id}")
        life.artifacts = {one["key"] for one in life.call("artifacts/filter", {})}
        scheduled = life.call("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        names = {one["id"]: name for name, one in life.deployments.items()}
        life.due = {names[run["deployment_id"]] for run in scheduled}
        life.interrupted = life.start_run("2021-07-19")
        until(lambda: life.state(life.interrupted) == "RUNNING")
        life.processes = family(served.pid)
        served.send_signal(signal.SIGINT)
        life.exit_code = served.wait(90)
        life.output = output.read_text()
        yield life
    finally:
        if served.poll() is None:
            served.kill()  # server and runner end with it
            served.wait()


def test_serve_offers_the_day_the_training_many_dates_and_health(life: Life) -> None:
    crons = {name: [each["schedule"]["cron"] for each in one["schedules"]] for name, one in life.deployments.items()}
    assert crons == {
        "daily": ["30 4 * * 0,2,3,4,5,6"],
        "retrain": ["30 4 * * 1"],
        "backfill": [],
        "health": ["0 12 * * *"],
    }
    retrain = {name: one["parameters"]["config"].get("retrain") for name, one in life.deployments.items()}
    assert retrain == {"daily": "weekly", "retrain": "daily", "backfill": "weekly", "health": None}
    assert {"first", "last"} <= set(str(life.deployments["backfill"]["parameter_openapi_schema"]).split("'"))


def test_the_days_to_come_are_scheduled(life: Life) -> None:
    assert life.due == {"daily", "retrain", "health"}


def test_a_run_started_through_the_server_publishes_and_shows_its_tables(life: Life) -> None:
    assert life.finished["state_type"] == "COMPLETED", life.output
    assert life.finished["name"] == f"shop-{AS_OF}"
    assert (life.home / "serving" / "almanac.duckdb").exists()
    assert {"quality-shop", "metrics-shop", "lists-shop"} <= life.artifacts


def test_a_second_serve_on_the_same_home_is_refused_and_disturbs_nothing(life: Life) -> None:
    assert life.second and life.second.returncode == 2
    assert f"is served already, at {life.url}" in life.second.stderr


def test_a_run_in_a_terminal_is_seen_by_the_server_of_the_home(life: Life) -> None:
    assert life.beside == {"shop-2021-07-18"}
    assert f"View at {life.url}/" in life.beside_output  # a server of its own would share the database, not the URL


def test_ctrl_c_in_the_middle_of_a_run_ends_every_process_and_frees_the_lock(life: Life) -> None:
    assert life.exit_code == 0, life.output
    assert len(life.processes) >= 3  # server, runner, run
    assert [pid for pid, started in life.processes.items() if started_at(pid) == started] == []
    with (life.home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with sqlite3.connect(life.home / "prefect" / "prefect.db") as state:
        query = "select state_type from flow_run where replace(id, '-', '') = replace(?, '-', '')"
        assert state.execute(query, [life.interrupted]).fetchone() == ("CANCELLED",)


def test_a_secret_given_on_the_command_line_stays_out_of_deployments_database_and_output(life: Life) -> None:
    assert life.deployments["retrain"]["parameters"]["config"]["postgres"] == "env:ALMANAC_POSTGRES"
    for file in (life.home / "prefect").glob("prefect.db*"):
        assert b"pass%2Fword" not in file.read_bytes(), file
    assert "pass%2Fword" not in life.output


def test_a_port_in_use_is_told_with_the_option_to_change_it(shop_files: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ["--source", "shop", "--input", shop_files, "--home", tmp_path / "home", "--port", port]
        done = subprocess.run(
            [*SERVE, *map(str, options)],
            env=bare_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in done.stderr and "--port" in done.stderr


@pytest.mark.parametrize("retrain", ["daily", "weekly", "never"])
def test_a_day_belongs_to_one_deployment(retrain: Any) -> None:
    schedules = Schedules(cron="0 5 * * *", retrain=retrain, retrain_day="sunday")
    lines = [line.split()[DAYS_OF_WEEK] for name in ("daily", "retrain") if (line := schedules.of(name))]
    days = [day for line in lines for day in (line.split(",") if line != "*" else "0123456")]
    assert sorted(days) == list("0123456")


@pytest.mark.parametrize("cron", ["0 5 1 * *", "0 5 * * 1-5", "5", ""])
def test_a_cron_line_that_leaves_no_room_for_the_weekly_training_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="--retrain daily or never"):
        Schedules(cron=cron).of("daily")


def test_parameters_hold_what_was_chosen_and_secrets_by_reference(tmp_path: Path) -> None:
    config = RunConfig(source="shop", input=tmp_path, home=tmp_path / "home", top_k=50, postgres="secret:lists")  # pyright: ignore[reportArgumentType]
    wanted = {"source": "shop", "input": str(tmp_path), "home": str(tmp_path / "home"), "top_k": 50}
    assert stated(config, RunConfig) == wanted | {"postgres": "secret:lists"}


def test_a_reference_to_the_environment_gives_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTS_URL", URL)
    assert resolve("env:LISTS_URL") == URL
    assert resolve(URL) == URL
    assert resolve(None) is None
    with pytest.raises(UsageError, match="no environment variable LISTS_URI "):
        resolve("env:LISTS_URI")


def test_a_reference_to_a_block_gives_the_secret(prefect: None) -> None:
    from prefect.blocks.system import Secret

    Secret(value=URL).save("lists", overwrite=True, _sync=True)  # pyright: ignore
    assert resolve("secret:lists") == URL
    with pytest.raises(UsageError, match="no Secret block of that name"):
        resolve("secret:other")


def test_a_secret_in_the_clear_moves_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTS_URL", "")
    assert kept("secret:lists", "LISTS_URL") == "secret:lists"
    assert kept(None, "LISTS_URL") is None and os.environ["LISTS_URL"] == ""
    assert kept(URL, "LISTS_URL") == "env:LISTS_URL" and resolve("env:LISTS_URL") == URL


def test_a_message_is_shown_without_secret_and_password() -> None:
    told = f"cannot connect to {URL}: user almanac, password {PASSWORD} (pass%2Fword)"
    assert masked(told, URL) == "cannot connect to ***: user almanac, password *** (***)"


def test_health_fails_where_lists_are_late(published: Published) -> None:
    from flows.health import HealthConfig, health

    with pytest.raises(RunError, match=f"late: the newest lists are for {published.as_of}"):
        health(HealthConfig(home=published.home))

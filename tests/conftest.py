"""Shared by all tests: one Prefect server, the real data, and one published small shop."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.local_postgres import Server, binaries, local_postgres
from tests.world import SHOP, end_date, write_world

DATA = Path(os.environ.get("ALMANAC_DATA", "no folder"))
NO_DATA = "set ALMANAC_DATA to the folder that holds online-retail-ii/"
NO_POSTGRES = "install a PostgreSQL server, e.g. apt-get install postgresql, for initdb"
TINY_SHOP: dict[str, Any] = {"users": 150, "items": 80, "days": 420}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data sets, `$ALMANAC_DATA`; without it a test is skipped, or fails if data is required."""
    if not DATA.is_dir():
        pytest.fail(NO_DATA) if os.environ.get("ALMANAC_REQUIRE_DATA") == "1" else pytest.skip(NO_DATA)
    return DATA


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not DATA.is_dir():
        terminalreporter.write_line(f"tests on real data did not run: {NO_DATA}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server; where none is installed a test is skipped, or fails if data is required."""
    if not binaries():
        pytest.fail(NO_POSTGRES) if os.environ.get("ALMANAC_REQUIRE_DATA") == "1" else pytest.skip(NO_POSTGRES)
    with local_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass(frozen=True)
class Published:
    """A shop's files, and the home into which they were published; `earlier` is the home as it was a week before."""

    files: Path
    earlier: Path
    home: Path
    as_of: date
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def shop_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a shop small enough to publish in seconds; treat as read-only."""
    folder = tmp_path_factory.mktemp("shop")
    write_world(folder, **TINY_SHOP)
    return folder


@pytest.fixture(scope="session")
def published(prefect: None, shop_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The small shop published by the real flow for two dates a week apart; treat as read-only."""
    folder = tmp_path_factory.mktemp("published")
    last = end_date(**(SHOP | TINY_SHOP))
    publish(shop_files, folder / "home", last - timedelta(days=7))
    shutil.copytree(folder / "home", folder / "earlier", symlinks=True)
    return Published(shop_files, folder / "earlier", folder / "home", last, publish(shop_files, folder / "home", last))


def publish(files: Path, home: Path, as_of: date, **options: Any) -> dict[str, Any]:
    """One run of the daily flow on a shop."""
    from flows.configuration import RunConfig
    from flows.daily import daily

    return daily(RunConfig(source="shop", input=files, as_of=as_of, home=home, **options))  # pyright: ignore

"""Readers against publishing: four processes read the serving file through its link, four read PostgreSQL, all the time
while lists are published again and again. Prints a table for the README: reads, errors, mixed versions, longest wait.

Run: python -m benchmarks.readers [--publishes 50] [--postgres URL of an empty database]; without a URL it starts a server.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import duckdb
from adbc_driver_postgresql import dbapi
from tqdm import tqdm

from benchmarks.local_postgres import local_postgres
from benchmarks.marked_lists import FIRST_DATE, MarkedHome

READERS = 4  # of each kind
HELD_READS = 25  # by one connection, before it is given up
PAUSE_SECONDS = 0.1  # between two reads
HISTORY_DAYS = 5
LONG_WAIT_SECONDS = 1.0
SIZE: dict[str, Any] = {"users": 100, "items": 60, "top_k": 10}
# In all views the newest date carries the mark of one run and each date that of its run. One statement sees one version.
MARKS = """
select reason_item_id as mark, 'lists' as what, count(*) as number from current_recommendations group by reason_item_id
union all
select lists.reason_item_id, 'history', count(*) from recommendations_history as lists
inner join latest_runs as runs on lists.as_of = runs.as_of and lists.reason_item_id = runs.run_id
where lists.as_of = (select max(as_of) from latest_runs) group by lists.reason_item_id
union all
select substr(similar_item_id, 1, 7), 'similar', count(*) from similar_items group by substr(similar_item_id, 1, 7)
union all
select for_you_why, 'gate', count(*) from latest_runs where as_of = (select max(as_of) from latest_runs) group by for_you_why
union all
select max(run_id), 'log', 1 from run_log where is_served
union all
select 'run' || lpad(cast(cast(holdout_value as integer) as varchar), 4, '0'), 'quality', count(*) from quality_daily
where as_of = (select max(as_of) from latest_runs) group by holdout_value
union all
select (select max(run_id) from latest_runs), 'reach', cast(sum(users) as bigint) from item_reach
where as_of = (select max(as_of) from latest_runs)
union all
select (select max(run_id) from latest_runs), 'astray', count(*) from recommendations_history as lists
left join latest_runs as runs on lists.as_of = runs.as_of and lists.reason_item_id = runs.run_id where runs.run_id is null
"""
ROWS = 2 * SIZE["users"] * SIZE["top_k"]
EXPECTED = {"lists": ROWS, "history": ROWS, "similar": SIZE["items"] * SIZE["top_k"], "gate": 1, "log": 1, "quality": 8}
EXPECTED |= {"reach": ROWS, "astray": 0}
Read = tuple[Callable[[], list[tuple[Any, ...]]], tuple[int, ...]]  # a query, and the processes that work on it


class Tally(Counter[str]):
    """reads, errors, mixed, backwards, waits; the longest wait in seconds; the first things that went wrong.

    A wait is the time that a read took, less what its processes stood in line for a processor that others held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest, self.newest, self.wrong = 0.0, "", list[str]()

    def note(self, read: Callable[[], tuple[str, float]]) -> None:
        """Counts one read, which returns the run it saw and its seconds in line, and what was wrong with it."""
        start, in_line = time.perf_counter(), 0.0
        try:
            run, in_line = read()
            self["backwards"] += run < self.newest
            self.newest = max(run, self.newest)
        except AssertionError as mixed:
            self["mixed"] += 1
            self.wrong.append(str(mixed))
        except Exception as error:
            self["errors"] += 1
            self.wrong.append(f"{type(error).__name__}: {error}")
        waited = time.perf_counter() - start - in_line
        self["reads"] += 1
        self["waits"] += waited > LONG_WAIT_SECONDS
        self.longest = max(self.longest, waited)


def seconds_in_line(processes: tuple[int, ...]) -> float:
    """How long processes could have run but had no processor, since they began; 0 where Linux does not tell."""
    stats = [Path(f"/proc/{process}/schedstat") for process in processes]
    return sum(int(stat.read_text().split()[1]) for stat in stats if stat.exists()) / 1e9


def seen(rows: list[tuple[Any, ...]]) -> str:
    """The one run that all views tell of; `AssertionError` for a mix."""
    runs = {mark for mark, _, _ in rows}
    counts = {what: number for _, what, number in rows}
    if len(runs) != 1 or len(rows) != len(EXPECTED) or counts != EXPECTED:
        raise AssertionError(f"mixed: {rows}")
    return runs.pop()


@contextmanager
def file_reader(link: str) -> Iterator[Read]:
    """As a DuckDB client connects."""
    with duckdb.connect(link, read_only=True, config={"threads": 1}) as connection:
        yield lambda: connection.execute(MARKS).fetchall(), (os.getpid(),)


@contextmanager
def postgres_reader(url: str) -> Iterator[Read]:
    """As a BI tool connects."""
    with dbapi.connect(
        f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dalmanac", autocommit=True
    ) as connection:

        def execute(query: str) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()

        yield lambda: execute(MARKS), (os.getpid(), execute("select pg_backend_pid()")[0][0])


def read_on(kind: str, place: str, stop: Event, results: Queue[Any]) -> None:
    """Reads until told to stop: each time with a new connection, and with one that stays open for a while."""
    connect = {"serving file": file_reader, "PostgreSQL": postgres_reader}[kind]
    new, held = Tally(), Tally()

    def anew() -> tuple[str, float]:
        before = seconds_in_line((os.getpid(),))
        with connect(place) as (read, processes):
            return seen(read()), seconds_in_line(processes) - before

    def again(read: Callable[[], list[tuple[Any, ...]]], processes: tuple[int, ...]) -> tuple[str, float]:
        before = seconds_in_line(processes)
        return seen(read()), seconds_in_line(processes) - before

    while not stop.is_set():
        with connect(place) as opened:
            for _ in range(HELD_READS):
                held.note(partial(again, *opened))
                new.note(anew)
                time.sleep(PAUSE_SECONDS)
                if stop.is_set():
                    break
    results.put((kind, "new connection each time", dict(new), new.longest, new.newest, new.wrong[:3]))
    results.put((kind, f"one connection for {HELD_READS} reads", dict(held), held.longest, held.newest, held.wrong[:3]))


def publish_often(marked: MarkedHome, publishes: int, url: str) -> list[float]:
    """Seconds of each publish; every second one replaces the date of the one before."""
    took = []
    for version in tqdm(range(1, publishes + 1), desc="publishes", disable=None):
        start = time.perf_counter()
        marked.publish(version, FIRST_DATE + timedelta(days=version // 2), url, HISTORY_DAYS)
        took.append(time.perf_counter() - start)
    return took


def measure(folder: Path, publishes: int, url: str) -> bool:
    """Prints the table; returns whether no reader noticed anything."""
    marked = MarkedHome(folder / "home", **SIZE)
    marked.publish(0, FIRST_DATE, url, HISTORY_DAYS)
    processes = multiprocessing.get_context("spawn")
    stop, results = processes.Event(), processes.Queue()
    places = {"serving file": str(marked.home / "serving/almanac.duckdb"), "PostgreSQL": url}
    readers = [
        processes.Process(target=read_on, args=(kind, place, stop, results), daemon=True)
        for kind, place in places.items()
        for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    time.sleep(3)
    took = publish_often(marked, publishes, url)
    time.sleep(1)
    stop.set()
    told = [results.get(timeout=60) for _ in range(2 * len(readers))]
    for reader in readers:
        reader.join()
    print(f"{publishes} publishes, {sum(took) / len(took):.2f} s each (longest {max(took):.2f} s)\n")
    print("| readers | reads | errors | mixed versions | older than before | waits over 1 s | longest wait |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    good = True
    for kind in places:
        for how in dict.fromkeys(row[1] for row in told):
            rows = [row for row in told if row[:2] == (kind, how)]
            total = sum((Counter(row[2]) for row in rows), Counter())
            counts = [total[name] for name in ("reads", "errors", "mixed", "backwards", "waits")]
            longest = max(row[3] for row in rows)
            print(f"| {len(rows)} on {kind}, {how} | {' | '.join(f'{n:,}' for n in counts)} | {longest:.2f} s |")
            good &= not any(counts[1:]) and counts[0] > publishes
    good &= all(row[4] == f"run{publishes:04d}" for row in told if row[1].startswith("new"))
    for row in told:
        print(*row[5], sep="\n", end="", file=sys.stderr)
    return good


def main() -> None:
    """Exits with 1 when a reader noticed anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publishes", type=int, default=50)
    parser.add_argument("--postgres", help="URL of an empty database")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="almanac-readers-"))
    try:
        with nullcontext() if options.postgres else local_postgres() as server:
            good = measure(folder, options.publishes, options.postgres or server.url("postgres"))  # pyright: ignore
    finally:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()

"""Does harm to runs in more than a hundred ways, then runs once more and compares everything with an undisturbed history.

Run: python -m benchmarks.chaos [--only WORDS] [--workers N] [--anew] [--list]; as root, with strace, faketime and PostgreSQL
installed, or else the faults that need them are left out and told. Finished faults are kept in .almanac-bench/chaos.jsonl
and not done again; the table goes to benchmarks/results/chaos.md. With --full: faults of the job on real data (ALMANAC_DATA).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from benchmarks import chaos_company, chaos_disk, chaos_files, chaos_full, chaos_kills, chaos_postgres
from benchmarks.chaos_fault import Fault, Outcome, suffer
from benchmarks.chaos_process import ROOT
from benchmarks.chaos_scene import Scene, full_scene, slice_scene
from benchmarks.chaos_server import prefect_server
from benchmarks.chaos_table import write_table
from benchmarks.local_postgres import binaries

BENCH = ROOT / ".almanac-bench"
FINISHED = BENCH / "chaos.jsonl"


def every_fault() -> list[Fault]:
    """By kind, those of the full job last."""
    kinds = (chaos_kills, chaos_disk, chaos_files, chaos_company, chaos_postgres, chaos_full)
    return [fault for kind in kinds for fault in kind.faults()]


@contextmanager
def theatre(full: bool) -> Iterator[Scene]:
    """A scene with a Prefect server that all runs share."""
    folder = Path(tempfile.mkdtemp(prefix="almanac-chaos-"))
    folder.chmod(0o755)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"  # what the killed had held
    try:
        with prefect_server(folder / "prefect") as (url, _):
            os.environ |= {
                "PREFECT_API_URL": url,
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_LOGGING_LEVEL": "CRITICAL",
            }
            yield full_scene(folder) if full else slice_scene(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lacking(fault: Fault) -> str:
    """What this machine has not got for a fault."""
    there = {"root": os.geteuid() == 0, "initdb": binaries() is not None}
    return ", ".join(need for need in fault.needs if not there.get(need, shutil.which(need) is not None))


def finished(file: Path) -> dict[str, Outcome]:
    """What is on record, the newest outcome of each fault."""
    if not file.exists():
        return {}
    outcomes = [Outcome(**json.loads(line)) for line in file.read_text().splitlines()]
    return {f"{outcome.kind}: {outcome.name}": outcome for outcome in outcomes}


def main() -> None:
    """Lets the faults happen that are not on record, writes the table; the exit code says whether all were made good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults whose kind and name hold these words")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--anew", action="store_true", help="forget what is on record")
    parser.add_argument("--full", action="store_true", help="those of the job on real data instead of the slice")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--keep", type=Path, default=FINISHED, help="the record")
    given = parser.parse_args()
    faults = [
        fault for fault in every_fault() if given.only in fault.key and (fault.kind == chaos_full.KIND) == given.full
    ]
    if given.list:
        print("\n".join(fault.key for fault in faults))
        return
    given.keep.parent.mkdir(exist_ok=True)
    if given.anew:
        given.keep.unlink(missing_ok=True)
    done = finished(given.keep)
    left = [fault for fault in faults if not lacking(fault) and not (fault.key in done and done[fault.key].is_good)]
    if left:
        with theatre(given.full) as scene, ThreadPoolExecutor(1 if given.full else given.workers) as workers:
            stages = {
                workers.submit(suffer, fault, scene, scene.folder / f"stage-{number}"): fault
                for number, fault in enumerate(left)
            }
            for future in tqdm(as_completed(stages), total=len(stages), desc="faults", disable=None):
                outcome = future.result()
                with given.keep.open("a") as record:
                    record.write(json.dumps(outcome.as_row()) + "\n")
                if not outcome.is_good:
                    tqdm.write(f"{outcome.kind}: {outcome.name}: {outcome.readers + outcome.wrong}")
    done = finished(given.keep)
    outcomes = [done[fault.key] for fault in every_fault() if fault.key in done]
    without = [f"{fault.key}: needs {lacking(fault)}" for fault in every_fault() if lacking(fault)]
    print(write_table(outcomes, without))
    sys.exit(not all(outcome.is_good for outcome in outcomes))


if __name__ == "__main__":
    main()

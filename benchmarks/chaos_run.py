"""`almanac run` and `almanac backfill` with a model that learns in a second, for `benchmarks.chaos`.

Run: python -m benchmarks.chaos_run INPUT HOME AS_OF [LAST] [--jobs N] [--postgres URL]; with LAST it is a backfill.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import typer

from flows.configuration import BackfillConfig, RunConfig
from flows.terminal import configured, ready, reported, say

FAST: dict[str, Any] = {
    "model": {"dimension": 8, "epochs": 1, "snapshot_count": 6},
    "baselines": ("popularity", "repeat_trend"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Logs and ends as the command line does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("as_of", type=date.fromisoformat)
    parser.add_argument("last", type=date.fromisoformat, nargs="?")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--postgres")
    given = parser.parse_args(arguments)
    common = FAST | {"source": "shop", "input": given.input, "home": given.home, "postgres": given.postgres}
    try:
        with reported(verbose=False):
            if given.last:
                config = configured(BackfillConfig, first=given.as_of, last=given.last, jobs=given.jobs, **common)
            else:
                config = configured(RunConfig, as_of=given.as_of, **common)
            ready(config, verbose=False)
            from flows.backfill import backfill
            from flows.daily import daily

            done: Any = backfill(config) if isinstance(config, BackfillConfig) else daily(config)
            say(f"published {done['published']}")
    except typer.Exit as end:
        sys.exit(end.exit_code)


if __name__ == "__main__":
    main()

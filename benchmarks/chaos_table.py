"""The table of `benchmarks.chaos`, as it goes to benchmarks/results/chaos.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chaos_fault import Outcome

RESULTS = Path(__file__).parent / "results" / "chaos.md"
ABOUT = """# Faults

Written by `python -m benchmarks.chaos`. Each fault comes upon a run (or a backfill) of a small shop in a home with earlier
publications, is shown to have happened, and is followed by an undisturbed run of the same date. Meanwhile a reader looks at
all views of the serving file: it must see exactly the old or exactly the new state. Afterwards the lists, the Parquet files,
the raw tables and the models must equal those of a history without faults bit for bit, the accounting must add up, every run
must have an end in `mart.runs`, the lock must be free and nothing half done may be left."""


def write_table(outcomes: list[Outcome], without: list[str]) -> str:
    """Writes the table, one row per kind, and below it every fault that was not made good; returns it."""
    lines = [
        "| faults | tried | happened | readers saw old or new only | all made good by the next run | slowest next run |"
    ]
    lines.append("| --- " * 6 + "|")
    for kind in [*dict.fromkeys(outcome.kind for outcome in outcomes), "all"]:
        mine = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        happened = [outcome for outcome in mine if outcome.happened is not None]
        readers = sum(not outcome.readers for outcome in happened)
        good = sum(outcome.is_good for outcome in happened)
        slowest = max((outcome.repair_seconds for outcome in happened), default=0.0)
        lines.append(f"| {kind} | {len(mine)} | {len(happened)} | {readers} | {good} | {slowest:.0f} s |")
    bad = [
        f"- {outcome.kind}, {outcome.name}: {'; '.join(outcome.readers + outcome.wrong)[:400]}"
        for outcome in outcomes
        if not outcome.is_good
    ]
    parts = [ABOUT, "\n".join(lines)]
    if bad:
        parts.append("Not made good:\n\n" + "\n".join(bad))
    if without:
        parts.append("Not tried here:\n\n" + "\n".join(f"- {line}" for line in without))
    text = "\n\n".join(parts) + "\n"
    RESULTS.write_text(text)
    return text

"""What must hold after a fault, and after the run that follows it: the lists, the ledgers, the files, the lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb

from benchmarks.chaos_scene import NOTHING, State, digest, served
from benchmarks.chaos_stage import Stage
from tasks.ingest import landed
from tasks.publish import PUBLISHED
from tasks.warehouse import connect, exclusive, exists, open_warehouse

OWN = {  # what belongs to a run rather than to its data
    "raw.interactions": "loaded_at, superseded_at",
    "raw.users": "loaded_at, superseded_at",
    "raw.items": "loaded_at, superseded_at",
    "raw.facts": "loaded_at, superseded_at",
    "raw.links": "loaded_at, superseded_at",
}
FATES = ("loaded", "unchanged", "excluded", "deferred", "quarantined")
ENDS = ("published", "replaced", "killed", "failed", "refused", "held", "loaded")
RECOMMENDATIONS = "as_of, list, user_id, rank, item_id, score, model, reason, reason_item_id"


def of_readers(stage: Stage, least: int | None = None) -> Iterator[str]:
    """What a reader saw must be one of the undisturbed states from before the fault to the goal, never anything else."""
    states = stage.scene.states
    allowed = [states[count] for count in range(stage.published if least is None else least, stage.goal + 1)]
    if stage.damaged:
        allowed.append(NOTHING)
    else:
        yield from (f"a reader failed: {failure}" for failure in dict.fromkeys(stage.failures))
    for seen in stage.watched:
        if seen not in allowed:
            nearest = min(states, key=lambda state: sum(seen.get(view) != state.get(view) for view in seen))
            views = [view for view in seen if seen[view] != nearest.get(view)]
            yield f"a reader saw a state that never was: {', '.join(views) or 'nothing served'} differ"


def after_repair(stage: Stage) -> list[str]:
    """Everything that is not as an undisturbed history left it."""
    wrong = [*_files(stage)]
    try:
        if served(stage.home) != stage.scene.states[stage.goal]:
            wrong.append("the serving file differs from an undisturbed one")
        if stage.mirrored and stage.mirrored() != stage.scene.states[stage.goal]:
            wrong.append("PostgreSQL differs from an undisturbed serving file")
        with exclusive(stage.home), open_warehouse(stage.home) as warehouse:
            wrong += [*_lists(stage, warehouse), *_accounting(stage, warehouse), *_runs(stage, warehouse)]
            wrong += [*_models(stage, warehouse)]
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return wrong


def undisturbed(home: Path) -> State:
    """What the warehouse of a home holds for good, by table."""
    with open_warehouse(home) as warehouse:
        return _durable(warehouse)


def _durable(warehouse: duckdb.DuckDBPyConnection) -> State:
    found = {
        table: digest(
            warehouse, f"(from mart.{table} semi join mart.publications using (as_of, run_id))", "* exclude (run_id)"
        )
        for table in PUBLISHED
        if exists(warehouse, f"mart.{table}")
    }
    for table, own in OWN.items():
        found[table] = digest(warehouse, f"(from {table} where superseded_at is null)", f"* exclude ({own})")
    return found


def _lists(stage: Stage, warehouse: duckdb.DuckDBPyConnection) -> Iterator[str]:
    reference = stage.scene.made.setdefault("durable", {})
    if stage.goal not in reference:
        reference[stage.goal] = undisturbed_copy(stage)
    found = _durable(warehouse)
    for table, expected in reference[stage.goal].items():
        if found.get(table) != expected:
            yield f"{table} differs from an undisturbed history: {found.get(table)} instead of {expected}"
    mart = digest(
        warehouse, "(from mart.recommendations semi join mart.publications using (as_of, run_id))", RECOMMENDATIONS
    )
    files = stage.serving / "recommendations" / "*" / "*.parquet"
    parquet = digest(warehouse, f"read_parquet('{files}', hive_partitioning = false)", RECOMMENDATIONS)
    if parquet != mart:
        yield f"Parquet holds {parquet}, mart {mart}"


def undisturbed_copy(stage: Stage) -> State:
    """The durable tables of the undisturbed home of the goal, read from a copy: opening a home may write to it."""
    return undisturbed(stage.scene.home(stage.goal, stage.folder / "reference"))


def _accounting(stage: Stage, warehouse: duckdb.DuckDBPyConnection) -> Iterator[str]:
    newest = "select arg_max(run_id, started_at) from mart.runs semi join mart.accounting using (run_id)"
    rows = warehouse.execute(
        f"select table_name, source_file, fate, sum(row_count) from mart.accounting where run_id = ({newest}) group by all"
    ).fetchall()
    if other := {fate for _, _, fate, _ in rows} - set(FATES):
        yield f"fates {other} in the accounting"
    counted = dict(
        warehouse.execute(
            "select (table_name, source_file), sum(row_count) from delivery.counts group by all"
        ).fetchall()
    )
    for table in landed(warehouse):
        file = stage.files / f"{table}.parquet"
        settled = sum(count for name, _, _, count in rows if name == table)
        read = delivered = sum(count for (name, _), count in counted.items() if name == table)
        if file.exists():
            with connect() as reader:
                read = reader.execute(f"select count(*) from '{file}'").fetchall()[0][0]
        if not read == settled == delivered:
            yield f"{file.name} has {read} rows, delivery.counts {delivered}, the accounting {settled}"
        ledger, kept = warehouse.execute(
            "select (select coalesce(sum(list_sum(map_values(fates))), 0) from raw.deliveries where table_name = $table"
            f" and superseded_at is null), (select count(*) from raw.{table} where superseded_at is null)"
            " + (select count(*) from quarantine.rows where table_name = $table and superseded_at is null)",
            {"table": table},
        ).fetchall()[0]
        if ledger != kept:
            yield f"raw.deliveries tells of {ledger} rows of {table}, raw and quarantine hold {kept}"
        twice = f"select source_file, source_row from raw.{table} where superseded_at is null group by all having count(*) > 1"
        if warehouse.execute(twice).fetchall():
            yield f"rows of raw.{table} are current twice"


def _runs(stage: Stage, warehouse: duckdb.DuckDBPyConnection) -> Iterator[str]:
    runs = warehouse.execute("select as_of, status, withdrawn_at from mart.runs order by started_at").fetchall()
    if odd := {status for _, status, _ in runs} - set(ENDS):
        yield f"runs are {odd} in mart.runs"
    for as_of in stage.scene.dates[: stage.goal]:
        published = sum(day == as_of and status == "published" and not gone for day, status, gone in runs)
        if published != 1:
            yield f"{published} runs of {as_of} count as published"
    if stale := warehouse.execute("select as_of from mart.runs where stale_since is not null").fetchall():
        yield f"stale: {stale}"


def _models(stage: Stage, warehouse: duckdb.DuckDBPyConnection) -> Iterator[str]:
    on_record = dict(warehouse.execute("select artifact, artifact_hash from mart.models").fetchall())
    if stage.lost:
        return
    there = {f"models/{file.name}" for file in (stage.home / "models").iterdir()}
    if there != set(on_record):
        yield f"models on disk and on record differ: {sorted(there ^ set(on_record))}"
    expected = {file.name for file in (stage.scene.homes[stage.goal] / "models").iterdir()}
    if there != {f"models/{name}" for name in expected}:
        yield "models differ from those of an undisturbed history"


def _files(stage: Stage) -> Iterator[str]:
    """Leftovers: of work, of writing, of DuckDB."""
    for place in ("work", "spill"):
        folder = stage.home / place
        if left := [path.name for path in folder.rglob("*")] if folder.exists() else []:
            yield f"left in {place}: {left[:5]}"
    for path in stage.home.rglob("*"):
        if path.suffix in (".partial", ".wal") or path.name.startswith("next."):
            yield f"left: {path.relative_to(stage.home)}"

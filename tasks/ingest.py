"""From a source's files to `raw.*`: land what is new, load what passed, account for every row read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from tasks.adapters import read_adapter
from tasks.arrivals import note_arrivals
from tasks.contracts import check_contract, check_output, contract_mark, reading_as_before, record_contract
from tasks.errors import ContractError, RejectLimitError, RunError, brief
from tasks.forgotten import RULE, mark_forgotten
from tasks.input_files import Sizes, input_sizes, refuse_changes, some
from tasks.sources import CONTRACTS, DATE_COLUMN, PROVENANCE, Source
from tasks.warehouse import (
    SQL,
    append,
    exists,
    is_about_writing,
    open_warehouse,
    quoted,
    read_select,
    restrict,
    scalar,
    set_variables,
    supersede,
    transaction,
)

OPTIONAL = ("raw_text", "arrived_at")  # columns an adapter may leave out
ROW_KEYS = {
    "users": ("user_id",),
    "items": ("item_id",),
    "facts": ("subject", "relation", "object"),
    "links": ("user_id", "other_user_id", "relation"),
    "context": ("context_date", "series"),
}
NO_FAULT_OF_THE_INPUT = (
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.InterruptException,
    duckdb.OutOfMemoryException,
)


def land(home: Path, source: Source, input_root: Path, as_of: date) -> dict[str, int]:
    """Reads every adapter into `delivery.*` without changing a durable table; returns new or changed rows by table.

    Rows dated on or after `as_of` are counted and left in the files. Raises `ContractError` when a file, a column or a type
    is missing, a file is empty or broken, or changes while it is read; `RunError` when the home cannot be written.
    """
    new_rows = {}
    sizes = input_sizes(input_root, home)
    selects = source.selects(input_root)
    with open_warehouse(home) as warehouse:
        _start_delivery(warehouse)
        restrict(warehouse, input_root)
        warehouse.execute((SQL / "text_files.sql").read_text())
        check_contract(warehouse, source)
        for table, paths in selects.items():
            with _reading(paths, input_root, home, sizes), reading_as_before(warehouse, source, paths):
                _open_adapter(warehouse, source, table, paths)
                mark_forgotten(warehouse, home, table)
                _count_rows(warehouse, table)
        note_arrivals(warehouse, input_root)
        _refuse_silence(warehouse, selects, input_root, sizes)
        for table, paths in selects.items():
            with _reading(paths, input_root, home, sizes), reading_as_before(warehouse, source, paths):
                _land_table(warehouse, table, source, as_of)
            new_rows[table] = scalar(warehouse, f"select count(*) from delivery.new_{table}")
        refuse_changes(input_root, home, sizes)
    return new_rows


def landed(warehouse: DuckDBPyConnection) -> list[str]:
    """The tables of the delivery that `land` took in."""
    return [table for table in CONTRACTS if exists(warehouse, f"delivery.new_{table}")]


def load(home: Path, source: Source, as_of: date, loaded_at: datetime, run_id: str) -> list[tuple]:
    """Moves landed rows to `raw.*` or `quarantine.rows` in one transaction and returns the accounting rows.

    loaded_at: now, in UTC; rows of which the source does not say when they arrived did so with this load.
    Raises `RejectLimitError` before anything changes when too many rows are broken, `RunError` when counts do not add up.
    """
    with open_warehouse(home) as warehouse:
        set_variables(warehouse, as_of=as_of, loaded_at=loaded_at, delivery=source.delivery)
        with transaction(warehouse):
            for table in landed(warehouse):
                _refuse_too_many_rejects(warehouse, table, source)
                _load_table(warehouse, table, source)
            record_contract(warehouse, source, loaded_at)
            accounting = read_select(SQL / "delivery/accounting.sql", warehouse)
            append(warehouse, "mart.accounting", f"select $run_id as run_id, * from ({accounting})", run_id=run_id)
            _check_accounting(warehouse, run_id)
            _check_raw(warehouse)
        rows = "select table_name, source_file, fate, rule, row_count from mart.accounting where run_id = $run_id"
        return warehouse.execute(rows, {"run_id": run_id}).fetchall()


def source_snapshot(warehouse: DuckDBPyConnection, as_of: date, known_at: datetime | None = None) -> str:
    """A hash of every delivery unit a run for `as_of` rests on: equal inputs have equal snapshots.

    known_at: of what had arrived before that time, in UTC; a unit that had arrived in part is told apart by the time. None: of
    what is known now.
    """
    return scalar(
        warehouse,
        "select md5(coalesce(string_agg(concat_ws('|', table_name, source_file, delivery_date, row_count, content_hash,"
        " case when complete_at >= known_at then known_at end),"
        " chr(10) order by table_name, source_file, delivery_date, version), '')) from raw.deliveries,"
        " (select coalesce(cast($known_at as timestamp), timestamp 'infinity') as known_at)"
        " where loaded_at < known_at and coalesce(superseded_at, timestamp 'infinity') >= known_at"
        " and (delivery_date is null or delivery_date < $as_of)",
        as_of=as_of,
        known_at=known_at,
    )


def ensure_deliveries(warehouse: DuckDBPyConnection) -> None:
    """Makes `raw.deliveries`, or adds the column that one of an earlier version lacks."""
    warehouse.execute(
        "create table if not exists raw.deliveries (table_name varchar, source_file varchar, delivery_date date,"
        " version integer, row_count bigint, content_hash varchar, fates map(varchar, ubigint),"
        " loaded_at timestamp, superseded_at timestamp, complete_at timestamp)"
    )
    warehouse.execute("alter table raw.deliveries add column if not exists complete_at timestamp")


@contextmanager
def _reading(paths: list[Path], input_root: Path, home: Path, sizes: Sizes) -> Iterator[None]:
    """Turns what DuckDB says about input files and the SELECTs over them into a `ContractError`."""
    try:
        yield
    except duckdb.Error as error:
        if isinstance(error, NO_FAULT_OF_THE_INPUT) or is_about_writing(error):
            raise
        refuse_changes(input_root, home, sizes)
        said = brief(error).replace(f"{input_root}/", "").rstrip(".")
        raise ContractError(
            f"{', '.join(map(str, paths))} cannot read the input: {said}. Fix the files in {input_root}, or the SELECT"
        ) from error


def _refuse_silence(warehouse: DuckDBPyConnection, selects: dict[str, list[Path]], root: Path, sizes: Sizes) -> None:
    """An input without an interaction, and a delivered file that is still there but holds nothing any more, are faults."""
    if not scalar(warehouse, "select count(*) from delivery.counts where table_name = 'interactions'"):
        raise ContractError(
            f"{root} holds no rows: {selects['interactions'][0]} found files, but nothing below their headers; "
            "deliver them again"
        )
    known = warehouse.execute(
        "select source_file, string_agg(distinct table_name, ', ' order by table_name) from raw.deliveries"
        " where superseded_at is null and row_count > 0 and list_contains($tables, table_name)"
        " and source_file not in (select source_file from delivery.counts) group by all order by all",
        {"tables": list(selects)},
    ).fetchall()
    there = {name for path in sizes for name in (path.name, str(path.relative_to(root)))}
    silent = [f"{file} ({tables})" for file, tables in known if file in there]
    if silent:
        raise ContractError(
            f"{some(silent)} in {root} held rows before and holds none now; deliver it again, "
            "or remove it: its rows stay as loaded"
        )


def _start_delivery(warehouse: DuckDBPyConnection) -> None:
    warehouse.execute("drop schema if exists delivery cascade")
    warehouse.execute("create schema delivery")
    warehouse.execute(
        "create table delivery.counts"
        " (table_name varchar, source_file varchar, delivery_date date, row_count bigint, forgotten_count bigint)"
    )
    warehouse.execute("create table delivery.arrivals (source_file varchar, arrived_at timestamp)")
    warehouse.execute(
        "create table delivery.failures"
        " (table_name varchar, source_file varchar, source_row bigint, rule varchar, reason varchar)"
    )
    ensure_deliveries(warehouse)
    warehouse.execute(
        "create table if not exists quarantine.rows (table_name varchar, source_file varchar, source_row bigint,"
        " delivery_date date, rule varchar, reason varchar, raw_text varchar, first_seen_at timestamp,"
        " superseded_at timestamp)"
    )
    provenance = {name: kind for name, kind in PROVENANCE.items() if name not in OPTIONAL}
    for table, contract in CONTRACTS.items():
        columns = contract | provenance | {"loaded_at": "TIMESTAMP", "superseded_at": "TIMESTAMP"}
        listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        warehouse.execute(f"create table if not exists raw.{table} ({listed})")


def _open_adapter(warehouse: DuckDBPyConnection, source: Source, table: str, paths: list[Path]) -> None:
    """Makes a source's SELECTs the temporary relation `adapter_<table>`, their columns checked against the contract."""
    queries = [_checked_select(warehouse, source, table, path) for path in paths]
    kind = "view" if table == "interactions" else "table"  # the small tables may aggregate: run them once
    warehouse.execute(
        f"create temp {kind} adapter_{table} as select *, {DATE_COLUMN[table]} as delivery_date"
        f" from ({' union all by name '.join(queries)})"
    )


def _checked_select(warehouse: DuckDBPyConnection, source: Source, table: str, path: Path) -> str:
    query = read_adapter(path, warehouse)
    found = {row[0]: row[1] for row in warehouse.execute(f"describe {query}").fetchall()}
    check_output(warehouse, source, table, path, found)
    left_out = {name: PROVENANCE[name] for name in OPTIONAL if name not in found}
    found |= left_out
    for column, kind in (CONTRACTS[table] | PROVENANCE).items():
        if found.get(column) != kind:
            raise ContractError(
                f"{path}: column {column} must be {kind}, found {found.get(column, 'nothing')}; cast it there"
            )
    nulls = "".join(f", cast(null as {kind}) as {name}" for name, kind in left_out.items())
    return f"select *{nulls} from ({query})"


def _count_rows(warehouse: DuckDBPyConnection, table: str) -> None:
    set_variables(warehouse, adapter=f"marked_{table}")
    counts = read_select(SQL / "delivery/counts.sql", warehouse)
    warehouse.execute(f"insert into delivery.counts by name select '{table}' as table_name, * from ({counts})")


def _land_table(warehouse: DuckDBPyConnection, table: str, source: Source, as_of: date) -> None:
    """Lands the rows of a table that may be new, and sorts its units into new, changed, unchanged, gone."""
    names = scalar(
        warehouse,
        f"select md5(string_agg(column_name, ',' order by column_name)) from (describe adapter_{table})"
        " where column_name != 'arrived_at'",
    )
    columns = f"{contract_mark(source)}{names[:8]}"
    set_variables(warehouse, as_of=as_of, table_name=table, landed=f"delivery.{table}", columns=columns)
    wanted = "delivery_date is null or delivery_date < getvariable('as_of')"
    if source.look_back_days is not None:
        _choose_units(warehouse, table, source, as_of)
        wanted = "delivery_date is null or (source_file, delivery_date) in (from units_to_land)"
    rows = f"select * exclude (is_forgotten) from marked_{table} where ({wanted}) and not is_forgotten"
    warehouse.execute(f"create or replace table delivery.{table} as {rows}")

    hashes = read_select(SQL / "delivery/unit_hashes.sql", warehouse)
    warehouse.execute(f"create or replace table delivery.unit_hashes as {hashes}")
    append(warehouse, "delivery.units", read_select(SQL / "delivery/units.sql", warehouse))
    warehouse.execute(
        f"delete from delivery.{table} as landed using delivery.units as unit where unit.table_name = '{table}'"
        " and unit.status = 'unchanged' and unit.source_file = landed.source_file"
        " and unit.delivery_date is not distinct from landed.delivery_date"
    )
    warehouse.execute(  # what expectations look at: a row that could not be read or dated is broken before it is excluded
        f"create or replace view delivery.new_{table} as select * exclude (arrived_at) from delivery.{table}"
        " where excluded_because is null or raw_text is not null or delivery_date is null"
    )


def _choose_units(warehouse: DuckDBPyConnection, table: str, source: Source, as_of: date) -> None:
    """Makes `units_to_land`: inside the look-back window, or on record with another row count or under an earlier contract."""
    warehouse.execute(
        "create or replace temp table units_to_land as"
        " select source_file, delivery_date from delivery.counts left join ("
        "  select source_file, delivery_date, arg_max((row_count, content_hash), version) as known from raw.deliveries"
        "  where table_name = $table_name group by all) using (source_file, delivery_date)"
        " where table_name = $table_name and delivery_date < $as_of and (known[1] is distinct from row_count"
        "  or not starts_with(known[2], $mark)"
        "  or delivery_date >= (select max(delivery_date) - $look_back_days from raw.deliveries"
        "   where table_name = $table_name and delivery_date < $as_of))",
        {"table_name": table, "look_back_days": source.look_back_days, "as_of": as_of, "mark": contract_mark(source)},
    )


def _refuse_too_many_rejects(warehouse: DuckDBPyConnection, table: str, source: Source) -> None:
    new = "select sum(row_count) from delivery.units where table_name = $t and status in ('new', 'changed')"
    read = scalar(warehouse, new, t=table)
    broken = "select count(distinct (source_file, source_row)) from delivery.failures where table_name = $t"
    rejected = scalar(warehouse, broken, t=table)
    if read and rejected / read > source.max_reject_share:
        top = warehouse.execute(
            "select rule, count(*) from delivery.failures where table_name = $t group by 1 order by 2 desc limit 3",
            {"t": table},
        ).fetchall()
        rules = ", ".join(f"{rule} ({count:,} rows)" for rule, count in top)
        raise RejectLimitError(
            f"{table}: {rejected:,} of {read:,} new rows ({rejected / read:.2%}) are broken, allowed are "
            f"{source.max_reject_share:.2%}: {rules}. Nothing was changed. Look at delivery.failures in the warehouse, "
            f"then fix the files or raise max_reject_share in {source.folder / 'source.toml'}"
        )


def _load_table(warehouse: DuckDBPyConnection, table: str, source: Source) -> None:
    set_variables(warehouse, table_name=table, landed="landing")
    replaced = read_select(SQL / "delivery/replaced.sql", warehouse)
    warehouse.execute(f"create or replace temp table replaced as {replaced}")
    _note_known_rows(warehouse, table, source)
    fated = read_select(SQL / "delivery/fated.sql", warehouse)
    warehouse.execute(f"create or replace temp view fated as {fated}")
    for (at,) in warehouse.execute("select distinct replaced_at from replaced order by all").fetchall():
        units = "select source_file, delivery_date from replaced where replaced_at = $at"
        supersede(warehouse, f"raw.{table}", DATE_COLUMN[table], units, at)
        for ledger in ("quarantine.rows", "raw.deliveries"):
            supersede(warehouse, ledger, "delivery_date", units, at, f"old.table_name = '{table}'")

    append(
        warehouse,
        f"raw.{table}",
        "select * exclude (delivery_date, raw_text, rule, reason, fate) from fated where rule is null",
    )
    append(
        warehouse,
        "quarantine.rows",
        f"select '{table}' as table_name, source_file, source_row, delivery_date, rule, reason,"
        f" coalesce(raw_text, {_row_as_text(table)}) as raw_text, loaded_at as first_seen_at, superseded_at"
        " from fated where rule is not null order by source_file, source_row",
    )
    append(warehouse, "raw.deliveries", read_select(SQL / "delivery/versions.sql", warehouse))


def _note_known_rows(warehouse: DuckDBPyConnection, table: str, source: Source) -> None:
    """Makes `landing`: the landed rows, and which of them stand in for a row that this load replaces (`is_known`).

    Only rows of which the source says when they arrived are looked up, by the key of their table within their unit.
    """
    is_known = "false"
    if scalar(warehouse, f"select count(arrived_at) from delivery.{table}"):
        key = ", ".join(source.natural_key if table == "interactions" else ROW_KEYS[table])
        warehouse.execute(
            "create or replace temp table known_rows as"
            f" select distinct hash(source_file, {DATE_COLUMN[table]}, {key}) as row_key"
            f" from raw.{table} semi join replaced using (source_file) where superseded_at is null"
        )
        is_known = f"hash(source_file, delivery_date, {key}) in (select row_key from known_rows)"
    warehouse.execute(f"create or replace temp view landing as select *, {is_known} as is_known from delivery.{table}")


def _row_as_text(table: str) -> str:
    """SQL that writes the contract columns of a row as JSON."""
    fields = ", ".join(f"{quoted(column)} := {quoted(column)}" for column in CONTRACTS[table])
    return f"cast(to_json(struct_pack({fields})) as varchar)"


def _check_accounting(warehouse: DuckDBPyConnection, run_id: str) -> None:
    """read = loaded + unchanged + excluded + deferred + quarantined, for every file."""
    wrong = warehouse.execute(
        "select table_name, source_file, read, settled from"
        " (select table_name, source_file, sum(row_count) as read from delivery.counts group by all)"
        " full outer join (select table_name, source_file, sum(row_count) as settled from mart.accounting"
        "  where run_id = $run_id group by all) using (table_name, source_file) where read is distinct from settled",
        {"run_id": run_id},
    ).fetchall()
    if wrong:
        raise RunError(f"rows read and rows accounted for differ (table, file, read, accounted): {wrong}")


def _check_raw(warehouse: DuckDBPyConnection) -> None:
    """What the ledger says was kept or excluded is what lies in `raw.*`."""
    for table in landed(warehouse):
        ledger = scalar(
            warehouse,
            "select coalesce(sum(value), 0) from (select unnest(map_entries(fates), recursive := true)"
            " from raw.deliveries where table_name = $t and superseded_at is null)"
            " where key not like 'quarantined:%' and key != $forgotten",
            t=table,
            forgotten=f"excluded: {RULE}",
        )
        current = scalar(warehouse, f"select count(*) from raw.{table} where superseded_at is null")
        if ledger != current:
            raise RunError(f"raw.{table} holds {current:,} current rows, its deliveries say {ledger:,}")

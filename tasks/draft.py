"""The draft of a source: SELECTs and source.toml guessed from files, for a person to finish.

Every guess is stated in a comment `-- guessed:`; what only a person knows is marked `-- choose:`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from duckdb import DuckDBPyConnection

from tasks import guess
from tasks.errors import ContractError, UsageError
from tasks.files import Column, Table, literal, look, plain
from tasks.guess import Events, Joined
from tasks.ingest import land, load
from tasks.input_files import input_sizes
from tasks.sources import CONTRACTS, PROVENANCE, load_source, shipped_names
from tasks.validate import validate_delivery
from tasks.warehouse import SQL, connect, open_warehouse, read_select, restrict

TAKEN = set().union(
    *CONTRACTS.values(), PROVENANCE, {"loaded_at", "superseded_at", "delivery_date", "rule", "reason", "fate"}
)
WIDTH = 112  # of a comment


@dataclass
class Adapter:
    """One SELECT in the making."""

    table: Table
    guesses: list[str] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)  # by the column they are about
    columns: dict[str, str] = field(default_factory=dict)  # SQL by output column
    parsed: dict[str, str] = field(default_factory=dict)  # SQL by name of what several columns use

    def guess(self, target: str, column: Column, more: str = "") -> None:
        counts = f"{column.distinct:,} distinct of {column.filled:,}"
        self.guesses.append(f'guessed: {target} from "{plain(column.given)}"{more} ({counts})')

    def choose(self, target: str, text: str) -> None:
        self.choices.setdefault(target, []).append(text)

    def text(self) -> str:
        """The SELECT: what was guessed, the reader, and the contract's columns with what is to choose above them."""
        head = _comment(f"One row per row of {plain(self.table.files)} below the input folder.")
        head += "".join(map(_comment, self.guesses))
        events = f"delivered as (\n{self.table.reader}\n)"
        if self.parsed:
            parsed = "".join(f"        {sql} as {name},\n" for name, sql in self.parsed.items())
            events += f",\n\nevents as (\n    select\n        *,\n{parsed}    from delivered\n)"
        columns = ""
        for name, sql in (self.columns | {"source_file": "", "source_row": ""}).items():
            columns += "".join(_comment(f"choose: {text}", "    ") for text in self.choices.get(name, ()))
            columns += f"    {name},\n" if sql in ("", name) else f"    {sql} as {name},\n"
        origin = "events" if self.parsed else "delivered"
        return f"{head}with {events}\n\nselect\n{columns}from {origin}\n"


@dataclass
class Draft:
    """What was written, and what to tell about it."""

    adapters: dict[str, Adapter]
    settings: str
    unused: dict[str, str]  # by file, why no SELECT reads it

    @property
    def choices(self) -> list[str]:
        """What a person must decide, with the file it is marked in."""
        return [
            f"{name}.sql: {' '.join(text.split())}"
            for name, adapter in self.adapters.items()
            for texts in adapter.choices.values()
            for text in texts
        ]


def draft_source(name: str, path: Path, folder: Path) -> Draft:
    """Writes `<folder>/*.sql` and `source.toml` for the files below `path`, or for the one file; raises before it writes.

    `UsageError` for a name or folder that is taken, `ContractError` where no file holds users with items.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or name in shipped_names():
        taken = ", ".join(shipped_names())
        raise UsageError(f"{plain(name)!r} cannot name a source; take letters, digits, - and _, and none of {taken}")
    if folder.exists():
        raise UsageError(f"{folder} exists and is left as it is; give another name, or --to another folder")
    if not path.exists():
        raise UsageError(f"{path} does not exist; --from takes the folder that holds the files")
    root = path if path.is_dir() else path.parent
    with TemporaryDirectory() as spill, connect(temp_directory=Path(spill)) as connection:
        files = sorted(input_sizes(root, Path(spill))) if path.is_dir() else [path]
        restrict(connection, root)
        connection.execute((SQL / "text_files.sql").read_text())
        tables, unread = look(connection, root, files)
        draft = _draft(connection, name, tables, unread)
    folder.mkdir(parents=True)
    for table, adapter in draft.adapters.items():
        (folder / f"{table}.sql").write_text(adapter.text())
    (folder / "source.toml").write_text(draft.settings)
    return draft


def try_source(folder: Path, input_root: Path) -> dict[str, Any]:
    """Lands, validates and loads all that a source reads, in a home that is thrown away.

    Returns `accounting` (table, file, fate, rule, rows), `refused` (table: share of broken rows above the source's limit),
    and of the interactions that count: `users`, `items`, `first` and `last` date, `nearly_last` (999 of 1,000 are not later),
    `event_types` (name, rows) and `as_of`, the day after the last.
    """
    source, as_of = load_source(str(folder)), date(9999, 1, 1)
    lenient = source.model_copy(update={"max_reject_share": 1.0})
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        land(home, lenient, input_root, as_of)
        validate_delivery(home, lenient, as_of, "draft")
        accounting = load(home, lenient, as_of, datetime(1970, 1, 1), "draft")
        with open_warehouse(home) as warehouse:
            events = "from raw.interactions where excluded_because is null"
            numbers = "count(distinct user_id), count(distinct item_id), min(event_date), max(event_date)"
            query = f"select {numbers}, quantile_disc(event_date, 0.999) {events}"
            users, items, first, last, nearly_last = warehouse.execute(query).fetchall()[0]
            query = f"select event_type, count(*) {events} group by event_type order by 2 desc, 1"
            event_types = warehouse.execute(query).fetchall()
    refused = {}
    for table in {row[0] for row in accounting}:
        rows = [(row[2], row[4]) for row in accounting if row[0] == table]
        broken = sum(count for fate, count in rows if fate == "quarantined") / sum(count for _, count in rows)
        refused |= {table: broken} if broken > source.max_reject_share else {}
    return {
        "accounting": accounting,
        "refused": refused,
        "users": users,
        "items": items,
        "first": first,
        "last": last,
        "nearly_last": nearly_last,
        "event_types": event_types,
        "as_of": last + timedelta(days=1) if last else None,
    }


def _draft(connection: DuckDBPyConnection, name: str, tables: list[Table], unread: dict[str, str]) -> Draft:
    unused = {plain(file): plain(why, 200) for file, why in unread.items()}
    events = guess.find_events(connection, tables)
    if events is None:
        columns = {plain(t.files): ", ".join(plain(column.given, 30) for column in t.columns[:10]) for t in tables}
        seen = [f"{file} (columns {given})" for file, given in columns.items()]
        seen += [f"{file} ({why})" for file, why in unused.items()]
        raise ContractError(
            "no file holds events: one row per user, item and time, each in a column of its own. Almanac learns from dated "
            f"events and cannot do without. Looked at: {'; '.join(seen) or 'nothing, the folder is empty'}"
        )
    adapters, event_types = {}, _event_types(connection, events)
    adapters["interactions"] = _interactions(events, event_types)
    rest = [table for table in tables if table is not events.table]
    finders: dict[str, tuple[Callable[..., Joined | None], Callable[[Joined], Adapter]]] = {
        "users": (guess.find_users, _users),
        "items": (guess.find_items, _items),
        "facts": (guess.find_facts, _facts),
        "links": (guess.find_links, _links),
    }
    for kind, (find, write) in finders.items():
        found = find(connection, rest, events)
        if found:
            adapters[kind] = write(found)
            rest.remove(found.table)
    unused |= {plain(table.files): guess.why_unused(table) for table in rest}
    return Draft(adapters, _settings(connection, name, adapters, events.table, event_types), unused)


def _event_types(connection: DuckDBPyConnection, events: Events) -> dict[str, int]:
    """Rows by event type; one that is named after the table where no column tells."""
    column = guess.event_type_column(_others(events.table, events.user, events.item))
    if column is None:
        return {guess.event_name(events.table): events.table.rows}
    query = f"select {column.text}, count(*) from ({events.table.reader}) where {column.text} is not null group by 1"
    return dict(connection.execute(f"{query} order by 2 desc, 1 limit 50").fetchall())


def _interactions(events: Events, event_types: dict[str, int]) -> Adapter:
    table, user, item = events.table, events.user, events.item
    adapter = Adapter(table)
    adapter.guess("user_id", user)
    adapter.guess("item_id", item)
    if not events.is_sure:
        adapter.choose(
            "user_id", "is this the user and the next the item? No name tells; the order of columns was taken"
        )
    kind = guess.event_type_column(_others(table, user, item))
    if kind:
        adapter.guess("event_type", kind)
    else:
        adapter.guesses.append(f"guessed: every row is an event of one type, {next(iter(event_types))!r}")
    is_instant = _read_time(adapter)
    values, rules = _read_value(adapter, user, item)
    if user.filled < table.sampled:
        rules = {"no user": f"{user.name} is null"} | rules
    for rule, condition in rules.items():
        adapter.guesses.append(f"guessed: a row with {condition} is no interaction ({rule})")
    adapter.choose("excluded_because", "which further rows are no interactions: cancellations, test orders, robots …")
    zone = "cast(timezone('Europe/Berlin', timezone('UTC', event_time)) as date) as event_date"
    if not is_instant:
        zone = "make_timestamp(epoch_us(timezone('Europe/Berlin', event_time))) as occurred_at"
    adapter.choose("occurred_at", f"the time zone; UTC was taken. For another, in source.toml as well:\n{zone}")
    broken = [table.broken] if table.broken else []
    broken += ["event_time is null", *(f"(event_value is null and {value.name} is not null)" for value in values)]
    adapter.columns = {
        "user_id": user.text,
        "item_id": item.text,
        "event_type": kind.text if kind else literal(next(iter(event_types))),
        "occurred_at": "event_time",
        "event_date": "cast(event_time as date)",
        "value": "event_value",
        "excluded_because": _case({literal(rule): condition for rule, condition in rules.items()}),
        "raw_text": _case({table.raw: "\n            or ".join(broken)}),
    }
    return adapter


def _read_time(adapter: Adapter) -> bool:
    """Adds `event_time`; returns whether it is an instant."""
    candidates, parts = guess.time_columns(adapter.table), guess.date_parts(adapter.table)
    if candidates and (time := candidates[0].time):
        adapter.guess("occurred_at", candidates[0], f", {time.label}")
        adapter.parsed["event_time"] = candidates[0].timestamp(time)
        if other := candidates[0].other_time:
            adapter.choose("occurred_at", f"day or month first? {time.label} and {other.label} read every value alike")
        if others := ", ".join(f'"{plain(column.given)}"' for column in candidates[1:5]):
            adapter.choose("occurred_at", f"which column says when an event happened? There is also {others}")
        return time.is_instant
    if parts:
        adapter.guesses.append('guessed: occurred_at from "year", "month" and "day"')
        numbers = ", ".join(f"try_cast({part.name} as bigint)" for part in parts)
        adapter.parsed["event_time"] = f"try(make_timestamp({numbers}, 0, 0, 0))"
        return False
    adapter.choose(
        "occurred_at",
        "no column is a time, and Almanac needs dated events. Add it to the files, or, where all rows show one moment, write "
        "that above, e.g. timestamp '2011-05-31'; until then every row is quarantined as undated",
    )
    adapter.parsed["event_time"] = "cast(null as timestamp)"
    return False


def _read_value(adapter: Adapter, user: Column, item: Column) -> tuple[list[Column], dict[str, str]]:
    """Adds `event_value`; returns the columns it is made of, and by rule the condition of rows that are no interactions."""
    columns = [column for column in _others(adapter.table, user, item) if not column.time]
    rating, quantity, price, amount = (
        guess.number_column(columns, words) for words in (guess.RATING, guess.QUANTITY, guess.PRICE, guess.AMOUNT)
    )
    unnamed = None if adapter.table.has_names else guess.few_numbers(columns)
    value = rating or quantity or price or amount or unnamed
    if value is None:
        adapter.parsed["event_value"] = "cast(null as double)"
        return [], {}
    values = [quantity, price] if quantity and price and not rating else [value]
    for column in values:
        adapter.guess("value", column, ", as a factor" if len(values) > 1 else "")
    adapter.parsed["event_value"] = " * ".join(column.number for column in values)
    rules = {}
    if quantity and quantity.lowest is not None and quantity.lowest <= 0:
        rules["quantity not positive"] = f"{quantity.number} <= 0"
    if any(column.lowest is not None and column.lowest < 0 for column in values if column is not quantity):
        rules["value negative"] = "event_value < 0"
    return values, rules


def _users(found: Joined) -> Adapter:
    return _entities(found, "user_id", {})


def _items(found: Joined) -> Adapter:
    return _entities(found, "item_id", {"valid_to": "cast(null as date)"})


def _entities(found: Joined, key_name: str, further: dict[str, str]) -> Adapter:
    adapter, key = Adapter(found.table), found.columns[0]
    adapter.guess(key_name, key, f", which knows {found.shares[0]:.1%} of those of the interactions")
    valid_from = "cast(null as date)"
    for column in found.table.columns:
        if column.time and guess.KNOWN_FROM & set(guess.name_parts(column.given)):
            adapter.guess("valid_from", column, f", {column.time.label}")
            adapter.choose("valid_from", "is that the day from which a row was known? Else write cast(null as date)")
            valid_from = f"cast({column.timestamp(column.time)} as date)"
            break
    attributes = {}
    for column in found.table.columns:
        if column is key:
            continue
        if why := _why_silent(column):
            adapter.guesses.append(f'guessed: "{plain(column.given)}" tells nothing, {why}')
        else:
            attributes[column.name + ("_" if column.name in TAKEN else "")] = _attribute(column)
    adapter.columns = {
        key_name: key.text,
        "valid_from": valid_from,
        **further,
        **attributes,
        **_provenance(found.table),
    }
    return adapter


def _attribute(column: Column) -> str:
    """SQL by which a column tells users or items apart."""
    is_dated = column.time is not None and "1970" not in column.time.label
    is_code = guess.is_id_name(column.given) or (column.whole_share > 0.9 and _has_many_values(column))
    is_measure = column.number_share > 0.95 and column.distinct > 12 and not is_code
    readings = (
        (column.type.endswith("]"), column.name),
        (column.bracket_share > 0.9, f"try_cast(try_cast({column.name} as json) as varchar[])"),
        (column.bar_share > 0.2, f"string_split({column.text}, '|')"),
        (is_dated, f"cast({column.timestamp(column.time)} as date)" if column.time else ""),
        (is_measure, column.number),
        (
            _has_many_values(column) and column.words_share > 0.5,
            f"list_sort(list_distinct(regexp_extract_all(lower({column.name}), '\\p{{L}}{{3,}}')))",
        ),
    )
    return next((sql for is_so, sql in readings if is_so), column.text)


def _why_silent(column: Column) -> str | None:
    """Why a column cannot tell users or items apart."""
    if column.distinct <= 1:
        return "it has no two values"
    if column.type.startswith(("STRUCT", "MAP", "UNION", "BLOB")):
        return f"it is a {column.type.split('(')[0].lower()}"
    is_name = _attribute(column) == column.text and _has_many_values(column)
    return f"it has {column.distinct:,} values in {column.filled:,} rows" if is_name else None


def _has_many_values(column: Column) -> bool:
    return column.distinct > max(50, 0.5 * column.filled)


def _facts(found: Joined) -> Adapter:
    adapter, (subject, relation, object) = Adapter(found.table), found.columns
    adapter.guess("subject", subject, f", of which {found.shares[0]:.1%} are items of the interactions")
    adapter.choose("subject", "are these the item ids of the interactions, and not only the same numbers?")
    adapter.columns = {
        "subject": subject.text,
        "relation": relation.text,
        "object": object.text,
        "since": "cast(null as date)",
        **_provenance(found.table),
    }
    return adapter


def _links(found: Joined) -> Adapter:
    adapter, (user, other) = Adapter(found.table), found.columns
    for name, column, share in zip(("user_id", "other_user_id"), found.columns, found.shares, strict=True):
        adapter.guess(name, column, f", of which {share:.1%} are users of the interactions")
    rest = _others(found.table, user, other)
    strength = guess.number_column(rest, guess.AMOUNT)
    since = next((column.timestamp(column.time) for column in rest if column.time), "null")
    adapter.columns = {
        "user_id": user.text,
        "other_user_id": other.text,
        "relation": "'linked'",
        "strength": strength.number if strength else "cast(null as double)",
        "since": f"cast({since} as date)",
        **_provenance(found.table),
    }
    return adapter


def _provenance(table: Table) -> dict[str, str]:
    raw_text = {"raw_text": _case({table.raw: table.broken})} if table.broken else {}
    return {"excluded_because": "cast(null as varchar)", **raw_text}


def _others(table: Table, *columns: Column) -> list[Column]:
    return [column for column in table.columns if column not in columns]


def _case(branches: dict[str, str]) -> str:
    """A `case` by result and condition."""
    lines = "".join(
        f"        when\n            {condition}\n            then {result}\n"
        if "\n" in condition
        else f"        when {condition} then {result}\n"
        for result, condition in branches.items()
    )
    return f"case\n{lines}    end" if branches else "cast(null as varchar)"


def _settings(
    connection: DuckDBPyConnection, name: str, adapters: dict[str, Adapter], table: Table, event_types: dict[str, int]
) -> str:
    """The text of source.toml; horizon and repeats are measured on the drafted interactions."""
    connection.execute(f"create or replace temp view drafted as {adapters['interactions'].text()}")
    rhythm = connection.execute(read_select(SQL / "draft/rhythm.sql", connection)).fetchall()[0]
    repeat_share, gap_days, span_days = rhythm[0] or 0.0, rhythm[1] or 7, rhythm[2] or 0
    longest = 28 if gap_days > 14 else 7 if gap_days > 1 else 1
    horizon_days = max(days for days in (1, 7, 28) if days == 1 or days <= min(longest, span_days / 10))
    gap = f"half of the users' next active days come within {gap_days:g}; the events span {span_days:,}"
    users = adapters["users"].columns if "users" in adapters else {}
    segment = next((column for column in users if guess.SEGMENTS & set(guess.name_parts(column))), None)
    lines = [
        f"title = {_toml(f'{name}: {plain(table.files)}')}",
        'licence = ""  # choose: the terms under which you have the data',
        'time_zone = "UTC"  # choose: where event_date and --as-of are dates, e.g. "Europe/Berlin"; see interactions.sql',
        f"horizon_days = {horizon_days}  # guessed: {gap}",
        f"repeats = {str(repeat_share > 0.02).lower()}  # guessed: {repeat_share:.1%} of user-item pairs recur on another day",
        'delivery = "append"  # choose: "full_day" where a new file replaces the days that it holds',
        "max_reject_share = 0.01",
        'natural_key = ["user_id", "item_id", "event_type", "occurred_at"]  # rows that agree in these are one event',
        f'segment_column = "{segment}"' if segment else "# segment_column = a column of users.sql with a few values",
        "",
        "[event_strength]  # choose: how much an event of each type says about a taste",
        *(f"{_toml(kind)} = 1.0  # {rows:,} rows" for kind, rows in event_types.items()),
    ]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    return (
        text
        if re.fullmatch("[A-Za-z0-9_-]+", text)
        else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    )


def _comment(text: str, indent: str = "") -> str:
    lines = [
        line
        for part in text.split("\n")
        for line in textwrap.wrap(part, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return "".join(f"{indent}-- {'  ' if at else ''}{line}\n" for at, line in enumerate(lines))

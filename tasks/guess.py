"""Which table and column of unknown files is what: guessed from names, then from values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.files import Column, Table
from tasks.warehouse import scalar

# Words that begin a part of a column's or a file's name; a part is what 'customerID' and 'Customer Id' have two of.
WORDS = {
    "users": "user usr customer client member visitor shopper subscriber person patron reader listener viewer reviewer"
    " buyer player guest kunde kunden uid",
    "items": "item product prod article artikel movie film track song artist album sku stock asin isbn book ean gtin upc"
    " news video show game recipe place venue poi location business restaurant hotel course job listing offer content"
    " material produkt ware",
}
ID_ENDS = ("id", "ids", "no", "nr", "num", "number", "nummer", "code", "key", "uuid", "guid")
WHOLE_IDS = {"asin", "isbn", "sku", "ean", "gtin", "upc", "uid"}
NO_IDS = {"session", "order", "invoice", "transaction", "event", "type", "group", "category", "tag", "device", "agent"}
TIME_ENDS = ("time", "date", "datum", "stamp")
TIMES = {"ts", "at", "when", "day", "zeit", "created", "occurred"}
OTHER_TIMES = {"birth", "release", "released", "launch", "signup", "registered", "joined", "expires", "updated", "end"}
OTHER_TIMES |= {"modified", "due", "ship", "shipped", "delivery", "delivered", "start", "deleted"}
KNOWN_FROM = {"signup", "registered", "registration", "joined", "created", "launch", "release", "released", "added"}
EVENT = {"event", "action", "behavior", "behaviour", "activity", "interaction", "verb"}
RATING = {"rating", "score", "stars", "grade", "bewertung"}
QUANTITY = {"quantity", "qty", "menge", "anzahl", "units", "pieces"}
PRICE = {"price", "unitprice", "preis"}
AMOUNT = {"amount", "total", "revenue", "betrag", "value", "weight", "count", "plays", "playcount", "duration"}
TRIPLE = ({"subject", "head"}, {"relation", "predicate"}, {"object", "tail"})
TRIPLE_FILES = {"kg", "facts", "triples", "knowledge"}
EVENT_NAMES = (
    "click",
    "view",
    "play",
    "listen",
    "purchase",
    "order",
    "rating",
    "review",
    "visit",
    "checkin",
    "loan",
    "like",
)
SEGMENTS = {"country", "segment", "region", "land"}


@dataclass(frozen=True)
class Events:
    """The table of interactions and its columns."""

    table: Table
    user: Column
    item: Column
    is_sure: bool  # by names, not only by their place


@dataclass(frozen=True)
class Joined:
    """A table whose columns hold ids of users or items; `shares` of these are known to the interactions."""

    table: Table
    columns: tuple[Column, ...]
    shares: tuple[float, ...]


def find_events(connection: DuckDBPyConnection, tables: list[Table]) -> Events | None:
    """The table with users and items: dated before undated, named before unnamed, then the largest."""
    found = []
    for table in tables:
        user = _named(table.columns, "users")
        item = _named([column for column in table.columns if column is not user], "items")
        is_sure = bool(user and item)
        if not is_sure and time_columns(table):
            others = [column for column in table.columns if column not in (user, item) and _may_be_id(column)]
            others.sort(key=lambda column: not is_id_name(column.given))
            user = user or (others.pop(0) if others else None)
            item = item or (others.pop(0) if others else None)
            if user and item and _are_same_ids(connection, table, user, item):  # friends, not events
                continue
        if user and item:
            found.append(Events(table, user, item, is_sure))
    if not found:
        return None
    best = max(found, key=lambda events: (is_dated(events.table), events.is_sure, events.table.rows))
    for table in (
        tables if not best.is_sure else ()
    ):  # where a list of users knows the one column better, that is the user
        key = table is not best.table and _key_by_file_name(table, "users")
        if key:
            of_user, of_item = (_share(connection, best.table, c, table, key) for c in (best.user, best.item))
            best = replace(best, user=best.item, item=best.user) if of_item > of_user else best
    return best


def find_users(connection: DuckDBPyConnection, tables: list[Table], events: Events) -> Joined | None:
    """The table that tells most about users: one row an id, its key named like them."""
    return _find_entities(connection, tables, events, "users", events.user)


def find_items(connection: DuckDBPyConnection, tables: list[Table], events: Events) -> Joined | None:
    """The table that tells most about items: one row an id, its key named like them."""
    return _find_entities(connection, tables, events, "items", events.item)


def find_facts(connection: DuckDBPyConnection, tables: list[Table], events: Events) -> Joined | None:
    """The first table of subject, relation and object with a subject among the items."""
    for table in tables:
        named = [next((c for c in table.columns if words & set(name_parts(c.given))), None) for words in TRIPLE]
        columns = [column for column in named if column]
        if not table.has_names and TRIPLE_FILES & set(name_parts(Path(table.files).stem)):
            columns = list(table.columns)
        if len(columns) == 3 == len(table.columns):
            share = _share(connection, table, columns[0], events.table, events.item)
            if share:
                return Joined(table, tuple(columns), (share,))
    return None


def find_links(connection: DuckDBPyConnection, tables: list[Table], events: Events) -> Joined | None:
    """The first table with two columns of users."""
    for table in tables:
        columns = [column for column in table.columns if _may_be_id(column)][:2]
        if len(columns) == 2 and not any(_named([column], "items") for column in columns):
            shares = tuple(_share(connection, table, column, events.table, events.user) for column in columns)
            if min(shares) >= 0.8:
                return Joined(table, tuple(columns), shares)
    return None


def time_columns(table: Table) -> list[Column]:
    """The columns that may say when an event happened, best first."""

    def score(column: Column) -> tuple[int, int]:
        parts = name_parts(column.given)
        is_said = any(part in TIMES or part.endswith(TIME_ENDS) for part in parts)
        return 2 * is_said - 3 * bool(OTHER_TIMES & set(parts)), column.distinct

    candidates = [column for column in table.columns if column.time]
    if table.has_names:  # numbers that could be seconds are times only by their name
        candidates = [c for c in candidates if score(c)[0] > 0 or (c.time and "1970" not in c.time.label)]
    return sorted(candidates, key=score, reverse=True)


def date_parts(table: Table) -> list[Column]:
    """The columns year, month and day; none where one is missing."""
    named = {column.given.lower(): column for column in table.columns}
    parts = [named[part] for part in ("year", "month", "day") if part in named]
    return parts if len(parts) == 3 else []


def is_dated(table: Table) -> bool:
    """Whether something in it may say when an event happened."""
    return bool(time_columns(table) or date_parts(table))


def number_column(columns: Iterable[Column], words: set[str]) -> Column | None:
    """The first column of numbers whose name holds one of the words."""
    numbers = (column for column in columns if column.number_share > 0.9)
    return next((column for column in numbers if words & set(name_parts(column.given))), None)


def few_numbers(columns: Iterable[Column]) -> Column | None:
    """The first column of numbers with few values, such as stars."""
    return next((column for column in columns if column.number_share > 0.9 and 1 < column.distinct <= 100), None)


def event_type_column(columns: Iterable[Column]) -> Column | None:
    """A column that names the kind of event, by few values."""
    few = (c for c in columns if 1 <= c.distinct <= 20 and c.mean_length <= 64 and c.time is None)
    return next((c for c in few if EVENT & set(name_parts(c.given)) or name_parts(c.given) == ["type"]), None)


def event_name(table: Table) -> str:
    """What to call the events of a table that does not say."""
    names = {part for column in table.columns for part in name_parts(column.given)}
    if RATING & names:
        return "rating"
    if (QUANTITY | PRICE | {"invoice", "order"}) & names:
        return "purchase"
    words = [re.sub("[_-]", "", Path(table.files).name.lower()), *sorted(names)]
    return next((known for known in EVENT_NAMES for word in words if word.startswith(known)), "event")


def name_parts(name: str) -> list[str]:
    """The lower-case words of a name: 'customerID' and 'Customer Id' are customer, id."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W\d_]+", split.lower())


def is_id_name(name: str) -> bool:
    """Whether a name ends like that of an id."""
    return any(part.endswith(ID_ENDS) for part in name_parts(name))


def why_unused(table: Table) -> str:
    """Why no SELECT was drafted for a table, and what it may be good for."""
    has_users, has_items = (_named(table.columns, kind) for kind in ("users", "items"))
    if has_users and has_items:
        return "holds users and items too: if its rows are events, add them to interactions.sql with union all by name"
    if has_items:
        return "holds items too: join it in items.sql if it describes them"
    return "its columns fit no table of Almanac"


def _find_entities(
    connection: DuckDBPyConnection, tables: list[Table], events: Events, kind: str, column: Column
) -> Joined | None:
    found = []
    for table in tables:
        same = [c for c in table.columns if table.has_names and name_parts(c.given) == name_parts(column.given)]
        key = same[0] if same else _named(table.columns, kind) if table.has_names else None
        key = key or _key_by_file_name(table, kind)
        if key and key.is_unique:
            share = _share(connection, events.table, column, table, key)
            told = sum(other.distinct > 1 and not other.is_unique for other in table.columns)
            if share and len(table.columns) > 1:
                found.append((told, share, Joined(table, (key,), (share,))))
    return max(found, key=lambda row: row[:2])[2] if found else None


def _named(columns: Iterable[Column], kind: str) -> Column | None:
    """The column whose name says that it holds ids of users or items."""
    words = WORDS[kind].split()
    scored = [(_name_score(column.given, words), column.distinct, column) for column in columns if column.distinct > 1]
    best = max(scored, key=lambda row: row[:2], default=None)
    return best[2] if best and best[0] else None


def _name_score(name: str, words: list[str]) -> int:
    parts = name_parts(name)
    hits = [part for part in parts if part.startswith(tuple(words))]
    if not hits or NO_IDS & set(parts):
        return 0
    if (WHOLE_IDS | set(ID_ENDS)) & set(parts) or any(hit.endswith(ID_ENDS) for hit in hits):
        return 2
    return int(len(parts) == 1 and parts[0].removesuffix("s") in words)


def _may_be_id(column: Column) -> bool:
    is_code = column.whole_share == 1 or (column.number_share < 0.5 and column.words_share < 0.2)
    return 2 <= column.distinct < column.filled and is_code and column.mean_length <= 40 and column.time is None


def _are_same_ids(connection: DuckDBPyConnection, table: Table, user: Column, item: Column) -> bool:
    """Whether both columns draw on one set of ids; numbers do not tell, for every count begins at 1."""
    return user.number_share < 0.5 and _share(connection, table, item, table, user) > 0.9


def _key_by_file_name(table: Table, kind: str) -> Column | None:
    """The unique column `id`, or the first unique one where columns have no names, of a file named after users or items."""
    parts = name_parts(re.sub(r"\[0-9\]\*", "", Path(table.files).name))
    if not any(part.startswith(tuple(WORDS[kind].split())) for part in parts):
        return None
    ids = (column for column in table.columns if not table.has_names or name_parts(column.given) == ["id"])
    return next((column for column in ids if column.is_unique), None)


def _share(connection: DuckDBPyConnection, table: Table, column: Column, other: Table, key: Column) -> float:
    """The share of a column's sampled values that are among all of another table's."""
    values = f"select distinct {column.text} as value from {table.sample} where {column.text} is not null"
    known = f"select {key.text} from ({other.reader}) where {key.text} is not null"
    return scalar(connection, f"select coalesce(avg(cast(value in ({known}) as integer)), 0) from ({values})")

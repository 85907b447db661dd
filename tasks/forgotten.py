"""Users who were forgotten: a keyed hash of each id is kept, so that later deliveries leave them out.

The hash is HMAC-SHA-256 under a key of the home's own, `<home>/forget.key`. Without the key no id can be tried against it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from duckdb import DuckDBPyConnection

from tasks.errors import RunError
from tasks.sources import CONTRACTS
from tasks.warehouse import exists, scalar

RULE = "forgotten user"  # under which their rows are counted as excluded
WITHHELD = "withheld: it names a forgotten user"  # stands for the text of a broken row
USER_COLUMNS = {table: [name for name in columns if name.endswith("user_id")] for table, columns in CONTRACTS.items()}
KEY_BYTES, BLOCK_BYTES = 32, 64  # of the key; of SHA-256
BLANKS = "' ' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(160)"
# What may be an id in the text of a broken row: its words, and its fields with the blanks and quotes inside them.
WORDS = r"""list_concat(
    regexp_split_to_array({0}, '[\s,;|"'':{{}}\[\]]+'),
    list_transform(regexp_split_to_array({0}, '[,;|\t]|::'), lambda field: trim(field, ' "''')))"""
HMAC = "sha256($outer || unhex(sha256($inner || encode({0}))))"


def make_key(home: Path) -> bytes:
    """The home's key; made once, readable by its owner only."""
    path = home / "forget.key"
    if not path.exists():
        partial = home / "forget.key.partial"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    return path.read_bytes()


def user_hash(key: bytes, user_id: str) -> str:
    """HMAC-SHA-256 of an id, in hexadecimal digits."""
    return hmac.new(key, user_id.encode(), hashlib.sha256).hexdigest()


def mark_forgotten(warehouse: DuckDBPyConnection, home: Path, table: str) -> None:
    """Makes `marked_<table>`: the rows of `adapter_<table>` and whether they are a forgotten user's (`is_forgotten`).

    The text of a broken row that names such a user is withheld. Ids are hashed only where someone was forgotten, each once.
    Raises `RunError` when the key is gone.
    """
    view, marked = f"create temp view marked_{table} as", "false as is_forgotten"
    if not (exists(warehouse, "raw.forgotten") and scalar(warehouse, "select count(*) from raw.forgotten")):
        warehouse.execute(f"{view} select *, {marked} from adapter_{table}")
        return
    columns = USER_COLUMNS[table]
    _find_names(warehouse, home, table, columns)
    names = f"(select list(name) from forgotten_{table})"
    if columns:
        marked = f"{' or '.join(_is_named(column, table, names) for column in columns)} as is_forgotten"
    text = (
        f"case when list_has_any({WORDS.format('raw_text')}, {names}) then '{WITHHELD}' else raw_text end as raw_text"
    )
    warehouse.execute(f"{view} select * replace ({text}), {marked} from adapter_{table}")


def _find_names(warehouse: DuckDBPyConnection, home: Path, table: str, columns: list[str]) -> None:
    """Makes `forgotten_<table>`: the ids of forgotten users that the delivered rows hold."""
    path = home / "forget.key"
    if not path.exists():
        raise RunError(
            f"{path} is gone, and without it users who were forgotten would come back; restore it from a copy of the home"
        )
    key = path.read_bytes().ljust(BLOCK_BYTES, b"\0")
    pads = {"inner": bytes(byte ^ 0x36 for byte in key), "outer": bytes(byte ^ 0x5C for byte in key)}
    ids = ", ".join(f"trim({column}, {BLANKS})" for column in columns)
    texts = [(f"{column}", _is_odd(column)) for column in columns] + [("raw_text", "raw_text is not null")]
    words = [f"case when {odd} then {WORDS.format(text)} else [] end" for text, odd in texts]
    candidates = f"select distinct unnest(list_concat([{ids}], {', '.join(words)})) as name from adapter_{table}"
    warehouse.execute(
        f"create temp table forgotten_{table} as select name from ({candidates})"
        f" where name is not null and {HMAC.format('name')} in (select user_hash from raw.forgotten)",
        pads,
    )


def _is_named(column: str, table: str, names: str) -> str:
    """SQL: whether the column is a forgotten id, with or without blanks around it, or holds one in a broken text."""
    whole = f"coalesce(trim({column}, {BLANKS}) in (select name from forgotten_{table}), false)"
    return f"{whole} or coalesce({_is_odd(column)} and list_has_any({WORDS.format(column)}, {names}), false)"


def _is_odd(column: str) -> str:
    """SQL: whether a text is no id that would be loaded."""
    return f"(length({column}) > 256 or regexp_matches({column}, '[[:cntrl:]]'))"

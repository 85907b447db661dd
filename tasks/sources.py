"""A source: a folder of SELECTs and its `source.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import ContractError, UsageError
from tasks.warehouse import SQL

SHIPPED = SQL / "sources"

# What each adapter must output, by name and DuckDB type; users and items may add columns, which become features.
CONTRACTS: dict[str, dict[str, str]] = {
    "interactions": {
        "user_id": "VARCHAR",
        "item_id": "VARCHAR",
        "event_type": "VARCHAR",
        "occurred_at": "TIMESTAMP",
        "event_date": "DATE",
        "value": "DOUBLE",
    },
    "users": {"user_id": "VARCHAR", "valid_from": "DATE"},
    "items": {"item_id": "VARCHAR", "valid_from": "DATE", "valid_to": "DATE"},
    "facts": {"subject": "VARCHAR", "relation": "VARCHAR", "object": "VARCHAR", "since": "DATE"},
    "links": {
        "user_id": "VARCHAR",
        "other_user_id": "VARCHAR",
        "relation": "VARCHAR",
        "strength": "DOUBLE",
        "since": "DATE",
    },
    "context": {"context_date": "DATE", "series": "VARCHAR", "value": "DOUBLE", "known_since": "DATE"},
}
PROVENANCE = {"excluded_because": "VARCHAR", "raw_text": "VARCHAR", "source_file": "VARCHAR", "source_row": "BIGINT"}
DATE_COLUMN = {
    "interactions": "event_date",
    "users": "valid_from",
    "items": "valid_from",
    "facts": "since",
    "links": "since",
    "context": "known_since",  # a row about a day to come is read as soon as it is known
}
Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Source(BaseModel):
    """The settings of one source, read from `source.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: Path
    title: str
    description: str = ""
    licence: str = ""
    time_zone: str = "UTC"  # in which event_date and as_of are calendar dates
    horizon_days: int = Field(default=7, ge=1)  # what a list is for, and what a holdout measures
    repeats: bool = True  # whether an item a user already has may be recommended again
    delivery: Literal["append", "full_day"] = "append"  # whether a new file adds to a day or replaces it
    look_back_days: int | None = Field(
        default=None, ge=1
    )  # older days are compared by row count only; None = all by content
    max_reject_share: float = Field(default=0.01, ge=0, le=1)  # of the rows read and not deferred, per table
    natural_key: tuple[str, ...] = ("user_id", "item_id", "event_type", "occurred_at")
    segment_column: str | None = None  # of users.sql; the popularity a user without history is shown
    event_strength: dict[str, Strength] = Field(min_length=1)  # edge strength by event type
    needs: dict[str, tuple[str, ...]] = {}  # SELECT (path without .sql) → globs; it is left out where one finds no file

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except ZoneInfoNotFoundError as error:
            raise ValueError(str(error)) from error
        return zone

    @field_validator("natural_key")
    @classmethod
    def _known_columns(cls, key: tuple[str, ...]) -> tuple[str, ...]:
        if not {"user_id", "item_id"} <= set(key) <= set(CONTRACTS["interactions"]):
            raise ValueError(f"must hold user_id, item_id and others of {', '.join(CONTRACTS['interactions'])}")
        return key

    @field_validator("needs")
    @classmethod
    def _inside_input(cls, needs: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for pattern in (pattern for patterns in needs.values() for pattern in patterns):
            if pattern.startswith("/") or ".." in pattern:
                raise ValueError(f"{pattern!r} must lie inside the input folder")
        return needs

    @property
    def every_select(self) -> dict[str, list[Path]]:
        """The adapter files by table: `<table>.sql` in the source's folder or, for layouts and parts, in folders below."""
        found = {table: sorted(self.folder.glob(f"**/{table}.sql")) for table in CONTRACTS}
        return {table: paths for table, paths in found.items() if paths}

    def selects(self, input_root: Path) -> dict[str, list[Path]]:
        """The adapter files that this input has the needed files for; raises `ContractError` where nothing is to be read."""
        chosen = {
            table: [path for path in paths if not self.missing(path, input_root)]
            for table, paths in self.every_select.items()
        }
        if len(chosen["interactions"]) != 1:
            wanted = [", ".join(self.needs.get(self._name(path), ())) for path in self.every_select["interactions"]]
            raise ContractError(
                f"{input_root} must hold the files of one layout of {self.name}, found {len(chosen['interactions'])}: "
                + " or ".join(wanted)
            )
        return {table: paths for table, paths in chosen.items() if paths}

    def missing(self, path: Path, input_root: Path) -> list[str]:
        """The globs that an adapter needs and that find no file."""
        return [pattern for pattern in self.needs.get(self._name(path), ()) if not any(input_root.glob(pattern))]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).with_suffix("").as_posix()


def load_source(name_or_folder: str) -> Source:
    """The shipped source of that name, or the one in that folder; raises `UsageError` with what is wrong."""
    folder = SHIPPED / name_or_folder
    if not (folder / "source.toml").is_file():
        folder = Path(name_or_folder).resolve()
    path = folder / "source.toml"
    if not path.is_file():
        raise UsageError(
            f"no source {name_or_folder!r}: neither shipped ({', '.join(shipped_names())}) nor a folder with a source.toml"
        )
    try:
        source = Source(name=folder.name, folder=folder, **tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error
    if "interactions" not in source.every_select:
        raise UsageError(f"{folder} has no interactions.sql; a source needs at least that SELECT")
    return source


def shipped_names() -> list[str]:
    """Names of the sources that come with Almanac."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/source.toml"))

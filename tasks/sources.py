"""A source: a folder of SELECTs and its `source.toml`."""

from __future__ import annotations

import tomllib
from datetime import date
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
PROVENANCE |= {"arrived_at": "TIMESTAMP"}  # when the row arrived, in UTC; optional, as raw_text is
DATE_COLUMN = {
    "interactions": "event_date",
    "users": "valid_from",
    "items": "valid_from",
    "facts": "since",
    "links": "since",
    "context": "known_since",  # a row about a day to come is read as soon as it is known
}
Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Floors = dict[Literal["for_you", "discover"], Annotated[float, Field(allow_inf_nan=False)]]


class Health(BaseModel):
    """What is ordinary for a source, where its own history does not tell: the table `[health]` of `source.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lag_days: int = Field(default=0, ge=0)  # how late the feed usually is: that many of the last days are not looked at
    closed_dates: tuple[date, ...] = ()  # days known to be without events, such as holidays
    most_model_days: int = Field(default=35, ge=1)  # between the training of the model in charge and as_of
    quiet: tuple[str, ...] = ()  # measures of mart.drift that are recorded but never an alarm


class Gate(BaseModel):
    """When new lists are held back: the table `[gate]` of `source.toml`. docs/gate.md tells what each measure is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_drop: float = Field(default=0.5, ge=0, le=1)  # below the median of the last publications, its share; 1 = any
    max_age_days: int | None = Field(default=None, ge=1)  # of the newest event; None = two horizons, at least 14 days
    min_ndcg: Floors = {}  # on the holdouts, of the ranker that is published
    min_support: Floors = {}  # how much better lists fit their users than lists of others do; 0.1 = a tenth
    min_support_of_new: Floors = {}  # the same, of users whose first event is in the last horizon
    min_popularity: Floors = {}  # how much more popular listed items are than all live ones
    min_order: Floors = {}  # share of users with more behind the better half of their list
    min_graded: Floors = {}  # share of users whose first score is above their last
    min_coverage: Floors = {}  # share of live items in somebody's first ten
    min_spread: Floors = {}  # share of rows that are none of the ten most shown items
    min_overlap: Floors = {}  # share of the first ten that stays from one publication to the next
    min_recognised: Floors = {}  # share of users whose list is nearer to their own last one than to another user's
    min_first_kept: Floors = {}  # how often a first item stays, relative to the third to fifth
    min_agreement: Floors = {}  # correlation of ranks with those of the last publication, of items in both
    min_fresh_repeats: Floors = {}  # share of a user's new items that for_you shows again, beyond chance

    def floors(self, list_name: Literal["for_you", "discover"]) -> dict[str, float]:
        """Measure → the least that is asked of one list, where the source says so."""
        given = {name.removeprefix("min_"): floors for name, floors in self if name.startswith("min_")}
        return {measure: floors[list_name] for measure, floors in given.items() if list_name in floors}


class Source(BaseModel):
    """The settings of one source, read from `source.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: Path
    title: str
    description: str = ""
    licence: str = ""
    contract_version: int = Field(default=1, ge=1)  # raised whenever rows get another meaning: all are then read anew
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
    health: Health = Health()
    gate: Gate = Gate()
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

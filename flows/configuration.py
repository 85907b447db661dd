"""The configuration of a run: one frozen tree, every default in one place."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from flows.secrets import REFERENCE
from models.settings import DAILY, ModelName, ModelSettings, RivalName
from tasks.warehouse import MEMORY_LIMIT

DEFAULT_HOME = Path(".almanac")


class SourceConfig(BaseModel):
    """What is read, and where its warehouse is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="name of a shipped source, or a folder with SELECTs and source.toml")
    input: Path = Field(description="folder that holds the source's files")
    home: Path = Field(default=DEFAULT_HOME, description="folder of warehouse, models and serving files")
    memory_limit: str = Field(
        default=MEMORY_LIMIT,
        pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$",
        description="most memory DuckDB takes, e.g. 4GB; it spills beyond",
    )
    temp_directory: Path | None = Field(default=None, description="where DuckDB spills; default <home>/spill")
    model: ModelSettings = Field(default_factory=ModelSettings)


class PublishConfig(SourceConfig):
    """How lists are made and published, whatever the date."""

    top_k: int = Field(default=20, ge=1, le=1000, description="rows per user and list")
    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="torch device of training and scoring: cpu or cuda"
    )
    diversity: float = Field(
        default=0.0, ge=0, lt=1, description="how much the rows of a list may not resemble each other; 0 = best first"
    )
    warm_start: bool = Field(
        default=False, description="train on from the newest artifact of an earlier date instead of anew"
    )
    baselines: tuple[RivalName, ...] = Field(
        default=DAILY, min_length=1, description="what the model has to beat, and what is published where it does not"
    )
    retrain: Literal["daily", "weekly", "never"] = Field(
        default="daily", description="train for each date, once the newest model is a week old, or not at all"
    )
    known_at: Literal["event", "load"] = Field(
        default="event", description="event: all rows dated before the date; load: of these, what had arrived by then"
    )
    publish_anyway: bool = Field(
        default=False, description="publish lists that break a limit of the gate; it is recorded"
    )
    history_days: int = Field(default=90, ge=1, description="days of lists kept in the serving file; Parquet keeps all")
    postgres: SecretStr | None = Field(
        default=None,
        description="PostgreSQL to publish to as well: env:NAME or secret:BLOCK",
        json_schema_extra={"pattern": REFERENCE},  # in a form, whose fields Prefect stores and logs, no URL
    )
    wait_minutes: float = Field(default=0.0, ge=0, description="how long to wait for another run on the home to end")
    notify: tuple[str, ...] = Field(default=(), description="Prefect notification blocks that are told of trouble")

    @property
    def postgres_url(self) -> str | None:
        """The URL in the clear, for the one that connects."""
        from flows.secrets import resolve  # takes Prefect along

        return resolve(self.postgres.get_secret_value()) if self.postgres else None


class RunConfig(PublishConfig):
    """One run of one source for one date."""

    as_of: date | None = Field(
        default=None,
        description="the run sees only what is dated before this day, in the source's time zone; "
        "left out, the day for which the run was scheduled",
    )


class BackfillConfig(PublishConfig):
    """A run for each of many dates."""

    first: date | None = Field(default=None, description="the first date; may be left out with stale")
    last: date | None = Field(default=None, description="the last date, included; may be left out with stale")
    stale: bool = Field(default=False, description="instead: the published dates whose data have changed since")
    force: bool = Field(default=False, description="do published dates again")
    jobs: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="dates side by side")

    @model_validator(mode="after")
    def _has_dates(self) -> BackfillConfig:
        if self.stale != (self.first is None and self.last is None) or (self.first is None) != (self.last is None):
            raise ValueError("a backfill takes a first and a last date (--from, --to), or stale (--stale)")
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"the first date, {self.first}, is after the last, {self.last}")
        return self


class BacktestConfig(SourceConfig):
    """One backtest: models, judged at rolling origins on what happened next."""

    origins: tuple[date, ...] = Field(
        min_length=1, description="dates to be judged at, each as a daily run would see it"
    )
    horizons: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="days to find; none = the source's own horizon"
    )
    models: tuple[ModelName, ...] = Field(min_length=1, description="the model, ablations of it, baselines")
    seeds: int = Field(default=1, ge=1, description="of each fit")
    tune: bool = Field(default=True, description="search each baseline's settings before the first origin")
    processes: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="fits side by side")
    report: Path | None = Field(default=None, description="the HTML file; default <home>/backtests/<id>.html")

"""The steps that a daily run and a backfill share, as Prefect tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect import task

from flows.configuration import PublishConfig
from models.network import told
from tasks import audit, ingest, publish, recommend, registry, runs, snapshots, transform, validate
from tasks.errors import AlmanacError, DataRefused, GateHeld
from tasks.health import alarms, measure_health
from tasks.home import claim_home
from tasks.notify import Event, announce
from tasks.registry import Choice
from tasks.sources import Source
from tasks.status import write_status
from tasks.warehouse import open_warehouse

logger = logging.getLogger("almanac")
logger.setLevel(logging.INFO)  # so that the seconds of each step reach the log of a run on a server, too
EVENTS: dict[str, Event] = {
    "published": "run.published",
    "held": "run.held",
    "refused": "run.refused",
    "failed": "run.failed",
}


INTERRUPTED = "Query interrupted"  # the whole of DuckDB's RuntimeError on a signal


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a retry may help: errors with a message for a person come again, and Ctrl-C within a query is no error."""
    try:
        state.result()
    except AlmanacError:
        return False
    except Exception as error:
        return str(error) != INTERRUPTED
    return False


RETRIED: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 5, "retry_condition_fn": is_transient}
land = task(name="land", timeout_seconds=3600, **RETRIED)(ingest.land)
validate_delivery = task(name="validate delivery", timeout_seconds=3600)(validate.validate_delivery)
load = task(name="load", timeout_seconds=3600)(ingest.load)
build_staging = task(name="stage", timeout_seconds=3600)(transform.build_staging)
validate_staging = task(name="validate staging", timeout_seconds=3600)(validate.validate_staging)
build_graph = task(name="graph", timeout_seconds=3600)(transform.build_graph)
judge = task(name="judge", timeout_seconds=4 * 3600)(recommend.judge)
train = task(name="train", timeout_seconds=4 * 3600)(recommend.train)
score = task(name="score", timeout_seconds=3600)(recommend.score)
audit_lists = task(name="audit", timeout_seconds=600)(audit.audit)
publish_lists = task(name="publish", timeout_seconds=600, **RETRIED)(publish.publish)


def utc_now() -> datetime:
    """UTC, without a zone, as the warehouse stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass
class Day:
    """A date on its way: where it is worked on, and what its steps took and found."""

    as_of: date
    run_id: str = field(default_factory=lambda: uuid4().hex[:12])
    started_at: datetime = field(default_factory=utc_now)
    folder: Path = Path()
    snapshot: str = ""
    choice: Choice | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    quality: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)


def kept_open(step: Callable[..., None]) -> Callable[..., None]:
    """Opens the warehouse around a step of a job: each opening within it then takes a tenth of the time."""

    @wraps(step)
    def opened(job: Job, *arguments: Any) -> None:
        with open_warehouse(job.home):
            step(job, *arguments)

    return opened


@dataclass(frozen=True)
class Job:
    """What all dates of a flow have in common."""

    config: PublishConfig
    source: Source
    home: Path
    input_root: Path

    def begin(self) -> None:
        """Claims the home, closes what was killed, and serves what a killed run had published but not yet shown."""
        claim_home(self.home, self.source, self.input_root, self.config.memory_limit, self.config.temp_directory)
        runs.close_killed(self.home, utc_now())
        if publish.repair(self.home, self.config.history_days, self.config.postgres_url):
            logger.info("repaired  what readers see, after a run that was killed while publishing")

    @contextmanager
    def recorded(self, day: Day) -> Iterator[None]:
        """Opens the date's row in `mart.runs`; an error that ends it is told there."""
        self.open(day)
        write_status(self.home, utc_now())
        try:
            yield
        except BaseException as error:
            self.close(day, status_of(error), f"{type(error).__name__}: {error}")
            raise

    def open(self, day: Day) -> None:
        """Opens the date's row in `mart.runs`."""
        recorded = self.config.model_dump(mode="json")
        runs.start_run(self.home, self.source, self.input_root, day.as_of, day.run_id, day.started_at, recorded)

    def close(self, day: Day, status: str, message: str | None = None) -> None:
        """Closes the date's row and tells who wants to know; a disk too full for this must not hide what went wrong."""
        with suppress(AlmanacError), open_warehouse(self.home):
            runs.finish_run(self.home, day.run_id, status, utc_now(), day.seconds, message)
            write_status(self.home, utc_now())
        told = (self.source.name, day.as_of, day.run_id)
        if event := EVENTS.get(status):
            announce(event, *told, message, notify=self.config.notify)
        if day.found.get("alarms"):
            announce("health.warning", *told, alarms=day.found["alarms"], notify=self.config.notify)

    def take_in(self, day: Day, end: date) -> None:
        """Brings what is delivered and dated before `end` into `raw.*`; dates whose data changed are marked stale."""
        with timed("land", day.seconds):
            land(self.home, self.source, self.input_root, end)
        with timed("validate", day.seconds):
            day.quality += validate_delivery(self.home, self.source, end, day.run_id)
        with timed("load", day.seconds):
            day.found["accounting"] = load(self.home, self.source, end, day.started_at, day.run_id)
            day.found["stale"] = runs.mark_stale(self.home, utc_now())

    @kept_open
    def prepare(self, day: Day) -> None:
        """Builds the graph as of the date and keeps it in the date's folder."""
        known_at = transform.known_at(self.source, day.as_of) if self.config.known_at == "load" else None
        with timed("stage", day.seconds):
            build_staging(self.home, self.source, day.as_of, known_at)
        with timed("validate", day.seconds):
            day.quality += validate_staging(self.home, self.source, day.as_of, day.run_id)
        with timed("graph", day.seconds):
            day.found["nodes"] = build_graph(self.home, self.source, day.as_of)
            day.found["undated"] = transform.undated(self.home)
            day.snapshot = runs.describe_run(self.home, day.as_of, day.run_id, known_at)
            config = self.config
            parts = (day.snapshot, config.model.model_dump(), config.baselines, config.top_k, config.device)
            day.folder = snapshots.folder_of(self.home, self.source, day.as_of, *parts, self._parent(day.as_of))
            snapshots.store(self.home, self.source, day.as_of, day.folder)

    def start(self, as_of: date) -> tuple[Path | None, str | None]:
        """The artifact and version that a warm start trains on from."""
        parent = self._parent(as_of)
        return (registry.artifact(self.home, parent), parent) if parent else (None, None)

    @kept_open
    def choose(self, day: Day, trained: str | None) -> None:
        """Passes the gate: with the model trained in the date's folder, or with one on record."""
        if trained is None:
            recorded = self.config.model_dump(mode="json")
            trained = registry.register(
                self.home, self.source, day.as_of, day.folder, day.run_id, day.started_at, day.snapshot, recorded
            )
            day.choice = registry.choose(self.home, day.as_of, day.folder, day.run_id, self.config.top_k, trained)
            judged = recommend.read_judged(day.folder)
            day.found["network"] = {"passes": judged["epochs"], "taste": told(judged["finishes"])}
            day.found["network"] |= {hop: judged["settings"][hop] for hop in ("facts", "friends")}
        else:
            day.choice = registry.carry_on(self.home, day.as_of, day.run_id, trained)
        runs.name_model(self.home, day.run_id, trained)

    def scoring(self, day: Day) -> tuple[Any, ...]:
        """What `score` is called with."""
        assert day.choice
        file = registry.artifact(self.home, day.choice.model_version)
        config, choice = self.config, day.choice
        return (
            day.folder,
            self.source,
            file,
            choice.rankers,
            choice.options,
            config.top_k,
            config.device,
            config.diversity,
        )

    @kept_open
    def publish(self, day: Day) -> None:
        """Audits the date's scored lists and publishes them; the date's folder is then done with."""
        registry.take_scores(self.home, day.as_of, day.folder, day.run_id)
        with timed("audit", day.seconds):
            hold = not self.config.publish_anyway
            day.quality += audit_lists(self.home, self.source, day.as_of, self.config.top_k, day.run_id, hold)
        with timed("publish", day.seconds):
            config = self.config
            day.found["published"] = publish_lists(
                self.home, day.as_of, day.run_id, utc_now(), config.history_days, config.postgres_url
            )
        with timed("health", day.seconds):
            day.found["alarms"] = alarms(measure_health(self.home, self.source, day.as_of, day.run_id))
        snapshots.discard(self.home, day.as_of)

    def summary(self, day: Day) -> dict[str, Any]:
        """What the command line shows of a published date."""
        assert day.choice
        return day.found | {
            "run_id": day.run_id,
            "as_of": day.as_of,
            "source": self.source.name,
            "home": str(self.home),
            "why": day.choice.why,
            "model_version": day.choice.model_version,
            "seconds": day.seconds,
            "quality": day.quality,
            "warnings": [one for one in day.quality if one["severity"] == "warning" and not one["success"]],
        }

    def _parent(self, as_of: date) -> str | None:
        return registry.earlier_model(self.home, as_of) if self.config.warm_start else None


def status_of(error: BaseException) -> str:
    """How a run that ended so is recorded."""
    if isinstance(error, GateHeld):
        return "held"
    return "refused" if isinstance(error, DataRefused) else "failed"


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Adds the wall time to `seconds[step]` and logs it."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    seconds[step] = round(seconds.get(step, 0.0) + took, 3)
    logger.info("%-9s %6.1f s", step, took)

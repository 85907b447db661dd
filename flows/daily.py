"""The daily job: from raw files to published lists, for one source and one date."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from prefect import flow, task
from prefect.runtime import flow_run

from flows.configuration import RunConfig
from models.network import told
from tasks import artifacts, audit, ingest, publish, recommend, runs, transform, validate
from tasks.errors import AlmanacError, DataRefused
from tasks.sources import Source, load_source
from tasks.warehouse import exclusive

logger = logging.getLogger("almanac")


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a retry may help: errors with a message for a person come again."""
    try:
        state.result()
    except AlmanacError:
        return False
    except Exception:
        return True
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


def run_name() -> str:
    """Source and date of the current flow run."""
    config = RunConfig.model_validate(flow_run.parameters["config"])
    source = load_source(config.source)
    return f"{source.name}-{config.as_of or scheduled_date(source)}"


def scheduled_date(source: Source) -> date:
    """The day for which the current flow run was scheduled, in the source's time zone."""
    return flow_run.scheduled_start_time.astimezone(ZoneInfo(source.time_zone)).date()


@flow(name="almanac-daily", flow_run_name=run_name)
def daily(config: RunConfig) -> dict[str, Any]:
    """Publishes the lists of one date: every step in order; returns what the command line shows.

    Raises `AlmanacError`s as they are, after the run's row says how it ended; what was published before stays served.
    """
    source = load_source(config.source)
    home, input_root, as_of = config.home.resolve(), config.input.resolve(), config.as_of or scheduled_date(source)
    runs.check_request(home, source, input_root)
    run_id, started_at = uuid4().hex[:12], utc_now()
    seconds: dict[str, float] = {}
    with exclusive(home):
        runs.claim_home(home, source, input_root, config.memory_limit, config.temp_directory)
        runs.start_run(home, source, input_root, as_of, run_id, started_at, config.model_dump(mode="json"))
        try:
            summary = _steps(config, source, home, input_root, as_of, run_id, started_at, seconds)
        except BaseException as error:
            status = "refused" if isinstance(error, DataRefused) else "failed"
            with suppress(AlmanacError):  # a disk too full for this must not hide what went wrong
                runs.finish_run(home, run_id, status, utc_now(), seconds, None, f"{type(error).__name__}: {error}")
            raise
        runs.finish_run(home, run_id, "published", utc_now(), seconds, summary["model_version"], None)
        with _timed("report", seconds):
            artifacts.show_quality(summary.pop("quality"), source.name)
            summary["metrics"] = artifacts.metric_table(home, as_of)
            artifacts.show_metrics(summary["metrics"], as_of, source.name)
            artifacts.show_sample(home, as_of, source.name)
    return summary | {"run_id": run_id, "as_of": as_of, "source": source.name, "seconds": seconds, "home": str(home)}


def _steps(
    config: RunConfig,
    source: Source,
    home: Path,
    input_root: Path,
    as_of: date,
    run_id: str,
    started_at: datetime,
    seconds: dict[str, float],
) -> dict[str, Any]:
    device, top_k = config.device, config.top_k
    with _timed("land", seconds):
        land(home, source, input_root, as_of)
    with _timed("validate", seconds):
        quality = validate_delivery(home, source, as_of, run_id)
    with _timed("load", seconds):
        accounting = load(home, source, as_of, started_at, run_id)
    with _timed("stage", seconds):
        build_staging(home, source, as_of)
    with _timed("validate", seconds):
        quality += validate_staging(home, source, as_of, run_id)
    with _timed("graph", seconds):
        nodes = build_graph(home, source, as_of)
        runs.describe_run(home, as_of, run_id)
    with _timed("judge", seconds):
        choice = judge(home, source, as_of, config.model, config.baselines, top_k, device, run_id)
    with _timed("train", seconds):
        version = train(home, source, as_of, choice, device, run_id, started_at, config.warm_start)
    with _timed("score", seconds):
        score(home, source, as_of, top_k, choice, version, device, run_id, config.diversity)
    with _timed("audit", seconds):
        quality += audit_lists(home, source, as_of, top_k, run_id)
    with _timed("publish", seconds):
        published = publish_lists(home, source, as_of, run_id, config.history_days)
    return {
        "accounting": accounting,
        "nodes": nodes,
        "undated": transform.undated(home),
        "why": choice["why"],
        "network": {
            "passes": choice["epochs"],
            "taste": told(choice["finishes"]),
            **choice["settings"].model_dump(include={"facts", "friends"}),
        },
        "model_version": version,
        "published": published,
        "quality": quality,
        "warnings": [result for result in quality if result["severity"] == "warning" and not result["success"]],
    }


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    """Adds the wall time to `seconds[step]` and logs it."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    seconds[step] = round(seconds.get(step, 0.0) + took, 3)
    logger.info("%-9s %6.1f s", step, took)


def utc_now() -> datetime:
    """UTC, without a zone, as the warehouse stores it."""
    return datetime.now(UTC).replace(tzinfo=None)

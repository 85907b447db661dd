"""The daily job: from raw files to published lists, for one source and one date."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from prefect import flow
from prefect.runtime import flow_run

from flows.configuration import RunConfig
from flows.steps import Day, Job, judge, score, timed, train
from tasks import artifacts
from tasks.home import check_request
from tasks.registry import plan_training
from tasks.snapshots import is_whole
from tasks.sources import Source, load_source
from tasks.warehouse import exclusive


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
    job = Job(config, source, config.home.resolve(), config.input.resolve())
    day = Day(config.as_of or scheduled_date(source))
    check_request(job.home, source, job.input_root)
    with exclusive(job.home, config.wait_minutes):
        job.begin()
        with job.recorded(day):
            job.take_in(day, day.as_of)
            job.prepare(day)
            scored_with = plan_training(job.home, [day.as_of], config.retrain)[day.as_of]
            is_trained = isinstance(scored_with, date)
            if is_trained:
                _learn(job, day)
            job.choose(day, None if is_trained else scored_with)
            with timed("score", day.seconds):
                score(*job.scoring(day))
            job.publish(day)
        job.close(day, "published")
        with timed("report", day.seconds):
            metrics = artifacts.metric_table(job.home, day.as_of)
            artifacts.show_quality(day.quality, source.name)
            artifacts.show_metrics(metrics, day.as_of, source.name)
            artifacts.show_sample(job.home, day.as_of, source.name)
    return job.summary(day) | {"metrics": metrics}


def _learn(job: Job, day: Day) -> None:
    """Judges and trains, unless a run that was killed later had done so from the same data, code and settings."""
    config = job.config
    if not is_whole(day.folder / "judged.json"):
        with timed("judge", day.seconds):
            judge(day.folder, job.source, config.model, config.baselines, config.top_k, config.device)
    if not is_whole(day.folder / "model.pt"):
        with timed("train", day.seconds):
            train(day.folder, job.source, config.device, *job.start(day.as_of))

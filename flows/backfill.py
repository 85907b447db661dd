"""Backfill: a run for each of many dates. Dates learn and score side by side, and are published in order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from flows.configuration import BackfillConfig
from flows.steps import Day, Job, status_of, utc_now
from tasks import recommend, runs, snapshots
from tasks.errors import DataRefused, GateHeld, RunError
from tasks.home import check_request
from tasks.processes import side_by_side, stop
from tasks.registry import plan_training
from tasks.sources import load_source
from tasks.warehouse import exclusive


@flow(name="almanac-backfill")
def backfill(config: BackfillConfig) -> dict[str, Any]:
    """Publishes what daily runs of these dates would publish, row for row, whatever `jobs` is.

    Published dates are left as they are unless `force` (or `stale`) says so; an interrupted backfill goes on where it was. A
    date that is held or refused stays unpublished and the next one follows, as it would the day after; any other error ends it.
    Returns the dates published, left, and held with the reason.
    """
    source = load_source(config.source)
    job = Job(config, source, config.home.resolve(), config.input.resolve())
    check_request(job.home, source, job.input_root)
    with exclusive(job.home, config.wait_minutes):
        job.begin()
        intake = Day(config.last or runs.newest_publication(job.home) or utc_now().date())
        with job.recorded(intake):
            job.take_in(intake, intake.as_of)
        job.close(intake, "loaded")
        dates, left = _dates(job.home, config)
        backlog = Backlog(job, config.jobs, plan_training(job.home, dates, config.retrain))
        with _closed(backlog):
            for as_of in tqdm(sorted(dates), desc="backfill", unit="date", disable=None):
                publish_date(backlog, as_of)
        snapshots.discard(job.home)
    published = [as_of for as_of in sorted(dates) if as_of not in backlog.held]
    return {"published": published, "left": left, "held": backlog.held, "found": intake.found}


@dataclass
class Backlog:
    """The dates on their way to be published, and the processes that work on them."""

    job: Job
    jobs: int
    plan: dict[date, str | date]  # the version a date is scored with, or the date that trains it
    days: dict[date, Day] = field(default_factory=dict)
    learned: dict[date, Future] = field(default_factory=dict)
    scored: dict[date, Future] = field(default_factory=dict)
    held: dict[date, str] = field(default_factory=dict)
    current: date | None = None  # whose staging and graph the warehouse holds
    pool: ProcessPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.pool = side_by_side(self.jobs)

    def prepared(self, as_of: date) -> Day:
        """The date with its graph stored, which takes the warehouse."""
        if as_of not in self.days:
            job, day = self.job, Day(as_of)
            self.days[as_of] = day
            job.open(day)
            self.current = None
            job.prepare(day)
            self.current = as_of
        return self.days[as_of]

    def learn_ahead(self, since: date) -> None:
        """Keeps the processes busy with the next dates that train; a warm start waits for the date before."""
        job = self.job
        busy = sum(not future.done() for future in self.learned.values())
        for as_of in sorted(day for day, trained in self.plan.items() if day == trained and day >= since):
            if as_of in self.learned:
                continue
            if busy >= (1 if job.config.warm_start else self.jobs):
                return
            if job.config.warm_start and as_of != since:
                return
            with self.told(as_of):
                day, config = self.prepared(as_of), job.config
                arguments = (day.folder, job.source, config.model, config.baselines, config.top_k, config.device)
                self.learned[as_of] = self.pool.submit(recommend.learn, *arguments, *job.start(as_of))
                busy += 1

    def score_ahead(self, since: date) -> None:
        """Hands out the scoring of the next dates whose model is chosen."""
        following = [as_of for as_of in sorted(self.plan) if as_of > since][: 2 * self.jobs]
        for as_of in following:
            trained = self.plan[as_of]
            if as_of == trained or (isinstance(trained, date) and self.version(trained) is None):
                return
            if as_of not in self.scored:
                self.choose(as_of)

    def choose(self, as_of: date) -> None:
        """Passes the gate and hands the scoring out."""
        with self.told(as_of):
            day, trained = self.prepared(as_of), self.plan[as_of]
            version = trained if isinstance(trained, str) else self.version(trained)
            self.job.choose(day, None if as_of == trained else version)
            self.scored[as_of] = self.pool.submit(recommend.score, *self.job.scoring(day), shown=False)

    def version(self, trained: date) -> str | None:
        """Of the model that the plan trains as of a date, once it is chosen."""
        day = self.days.get(trained)
        return day.choice.model_version if day and day.choice else None

    @contextmanager
    def told(self, as_of: date) -> Iterator[None]:
        """Remembers the date an error is about."""
        try:
            yield
        except (DataRefused, GateHeld) as error:
            self.held[as_of] = str(error)
            self.job.close(self.days[as_of], status_of(error), f"{type(error).__name__}: {error}")
            if self.plan[as_of] == as_of:
                self._train_later(as_of)
        except BrokenProcessPool as error:
            raise RunError(
                f"a process that worked on {as_of} was killed, most often for lack of memory; run again with --jobs 1"
            ) from error

    def _train_later(self, held: date) -> None:
        """A model whose own date is not published scores no other: what would have used it trains anew."""
        later = [as_of for as_of in self.plan if as_of > held]
        self.plan |= plan_training(self.job.home, later, self.job.config.retrain)
        for as_of in later:
            self.scored.pop(as_of, None)
            if as_of in self.days:
                self.days[as_of].choice = None


@task(name="publish date", task_run_name="{as_of}", cache_policy=NO_CACHE)
def publish_date(backlog: Backlog, as_of: date) -> None:
    """Takes one date to the end; those after it learn and are scored meanwhile."""
    backlog.learn_ahead(as_of)
    if as_of not in backlog.held and as_of in backlog.learned:
        with backlog.told(as_of):
            backlog.days[as_of].seconds |= backlog.learned[as_of].result()
    if as_of not in backlog.held and as_of not in backlog.scored:
        backlog.choose(as_of)
    backlog.score_ahead(as_of)
    backlog.learn_ahead(as_of + timedelta(days=1))
    if as_of in backlog.held:
        return
    with backlog.told(as_of):
        day = backlog.days[as_of]
        backlog.scored[as_of].result()
        if backlog.current != as_of:
            snapshots.restore(backlog.job.home, day.folder)
            backlog.current = as_of
        backlog.job.publish(day)
        backlog.job.close(day, "published")


@contextmanager
def _closed(backlog: Backlog) -> Iterator[None]:
    """Ends the processes; after an error the rows of dates on their way say so."""
    try:
        yield
    except BaseException as error:
        stop(backlog.pool)
        for as_of, day in sorted(backlog.days.items()):
            if "publish" not in day.seconds and as_of not in backlog.held:
                backlog.job.close(day, "failed", f"{type(error).__name__}: {error}")
        raise
    backlog.pool.shutdown()


def _dates(home: Path, config: BackfillConfig) -> tuple[list[date], list[date]]:
    """What to do, and the published dates that are left as they are."""
    if config.stale:
        return runs.stale_dates(home), []
    assert config.first and config.last
    asked = [config.first + timedelta(days=ahead) for ahead in range((config.last - config.first).days + 1)]
    done = set() if config.force else set(runs.finished_dates(home))
    return [as_of for as_of in asked if as_of not in done], [as_of for as_of in asked if as_of in done]

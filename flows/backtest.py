"""Backtests: the same steps as a daily run's for every origin, measured on what happened next."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect import flow, task

from flows.configuration import BacktestConfig
from flows.steps import land, load, utc_now, validate_delivery
from tasks import backtest, backtest_tables, report
from tasks.home import check_request, claim_home
from tasks.sources import load_source
from tasks.warehouse import exclusive

prepare_origins = task(name="prepare origins", timeout_seconds=4 * 3600)(backtest.prepare_origins)
tune = task(name="tune", timeout_seconds=24 * 3600)(backtest.tune_baselines)
measure_jobs = task(name="measure", timeout_seconds=7 * 24 * 3600)(backtest.measure_jobs)
gather = task(name="gather", timeout_seconds=3600)(backtest_tables.gather)
write_report = task(name="report", timeout_seconds=600)(report.write_report)


@flow(name="almanac-backtest")
def rolling(config: BacktestConfig) -> dict[str, Any]:
    """Measures models at rolling origins; what an interrupted backtest has measured is not measured again.

    Returns id, report and leaderboard. Nothing that is published changes.
    """
    source = load_source(config.source)
    home, input_root = config.home.resolve(), config.input.resolve()
    horizons = config.horizons or (source.horizon_days,)
    check_request(home, source, input_root)
    started_at = utc_now()
    with exclusive(home):
        claim_home(home, source, input_root, config.memory_limit, config.temp_directory)
        end, run_id = backtest.read_until(config.origins, horizons), uuid4().hex[:12]
        land(home, source, input_root, end)
        validate_delivery(home, source, end, run_id)
        load(home, source, end, started_at, run_id)
        origins = prepare_origins(home, source, config.origins, horizons)
        options = (
            tune(home, source, origins, horizons, config.models, config.model, config.processes) if config.tune else {}
        )
        jobs = backtest.plan(home, source, origins, horizons, config.models, config.seeds, config.model, options)
        measured = measure_jobs(jobs, config.processes)
        described = config.model_dump(mode="json") | {"options": options}
        backtest_id = gather(home, source, jobs, started_at, utc_now(), described)
        file: Path = write_report(home, backtest_id, config.report)
        rows = backtest_tables.leaderboard(home, backtest_id)
    return {"backtest_id": backtest_id, "report": file, "leaderboard": rows, "jobs": len(jobs), "measured": measured}

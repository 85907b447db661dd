"""One HTML file about a backtest: verdict, leaderboards, curves, intervals, strata, ablations, costs, settings, lineage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.contenders import PUBLISHED
from models.evaluation import MODEL
from tasks.charts import (
    HEADLINE,
    METRICS,
    Chart,
    Row,
    Style,
    cost,
    curve,
    forest,
    interval,
    measure,
    sign,
    signed,
    styled,
)
from tasks.errors import UsageError
from tasks.warehouse import exists, open_warehouse, select

TEMPLATE = "report.html.jinja"
TABLES = ("run", "scores", "origins", "differences", "fits")  # sql/mart/report_*.sql
STRATA = ("all", "warm users", "few-event users", "cold users", "repeat", "discovery", "new items", "rare items")
MOST_VALUES = 24  # of a setting in one cell


def write_report(home: Path, backtest_id: str, file: Path | None = None) -> Path:
    """Writes the report of a backtest in `mart.backtest_runs`, by default to `<home>/backtests/<id>.html`; returns its path.

    The file needs nothing beside it: no network, script, font or image. Raises `UsageError` where there is no such
    backtest, or the file cannot be written.
    """
    tables = _read(home, backtest_id)
    file = file or home / "backtests" / f"{backtest_id}.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.write_text(_page(tables), encoding="utf-8")
        os.replace(partial, file)
    except OSError as error:
        raise UsageError(f"the report cannot be written to {file}: {error.strerror}. Name another file") from error
    return file


def _read(home: Path, backtest_id: str) -> dict[str, list[Row]]:
    with open_warehouse(home) as warehouse:
        names = TABLES if exists(warehouse, "mart.backtest_runs") else ()
        tables = {name: select(warehouse, f"mart/report_{name}", backtest_id=backtest_id).to_pylist() for name in names}
    if not tables.get("run"):
        raise UsageError(
            f"{home} holds no backtest {backtest_id}; `almanac backtest` makes one, mart.backtest_runs lists them"
        )
    for name in ("scores", "origins", "differences"):
        tables[name] = [row | {"measure": measure(row)} for row in tables[name]]
    return tables


def _page(tables: dict[str, list[Row]]) -> str:
    import jinja2
    from plotly.offline import get_plotlyjs

    run = tables["run"][0]
    reference = run["model"] or MODEL
    everyone = [row for row in tables["scores"] if row["stratum"] == "all" and row["measure"] == HEADLINE]
    styles = styled([row["model"] for row in everyone if not _is_ablation(row["model"])], reference)
    parts = dict.fromkeys((row["horizon_days"], row["list"]) for row in everyone)
    sections = [_section(tables, horizon, list_name, reference, styles) for horizon, list_name in parts]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {"signed": signed, "interval": interval, "sign": sign}
    return environment.get_template(TEMPLATE).render(
        run=run,
        reference=reference,
        headline=HEADLINE,
        sections=sections,
        charts={
            f"chart-{place}-{name}": chart
            for place, section in enumerate(sections, 1)
            for name, chart in section["charts"].items()
        },
        settings=list(_settings(tables["fits"])),
        config=_flat(json.loads(run["config"] or "{}")),
        plotly=get_plotlyjs(),
    )


def _section(
    tables: dict[str, list[Row]], horizon: int, list_name: str, reference: str, styles: dict[str, Style]
) -> dict[str, Any]:
    """What the report shows of one horizon and list."""
    scores, origins, differences = (
        [row for row in tables[name] if (row["horizon_days"], row["list"]) == (horizon, list_name)]
        for name in ("scores", "origins", "differences")
    )
    everyone = [row for row in scores if row["stratum"] == "all"]
    board = _board(everyone, differences, [row for row in tables["fits"] if row["horizon_days"] == horizon], styles)
    models = [row for row in board if not _is_ablation(row["model"])]
    ablations = [row for row in board if _is_ablation(row["model"])]
    names = [row["model"] for row in models]
    rivals = {row["model"]: row["model"] for row in models if row["ahead"]}
    without = {row["model"]: row["model"].removeprefix(MODEL).lstrip(", ") for row in ablations if row["ahead"]}
    timed = [row for row in models if row["seconds"]]
    headline = next(row for row in everyone if row["measure"] == HEADLINE)
    charts: dict[str, Chart] = {}
    if headline["origins"] > 1:
        charts["curve"] = curve([row for row in origins if row["model"] in names], names, styles)
    if timed:
        charts["cost"] = cost(
            timed, [row for row in everyone if row["model"] in names and row["metric"] in METRICS], styles
        )
    for title, others in (("forest", rivals), ("ablations", without)):
        if others:
            charts[title] = forest([row for row in differences if row["against"] in others], others)
    return {
        "horizon_days": horizon,
        "list": list_name,
        "users": headline["users"],
        "origins": headline["origins"],
        "verdict": _verdict([row for row in differences if row["measure"] == HEADLINE]),
        "models": models,
        "ablations": [row for row in board if row["model"] == reference] + ablations if ablations else [],
        "strata": _strata([row for row in scores if row["measure"] == HEADLINE and row["model"] in names]),
        "charts": charts,
        "measures": list(dict.fromkeys(label for chart in charts.values() for label in chart["measures"])),
    }


def _board(everyone: list[Row], differences: list[Row], fits: list[Row], styles: dict[str, Style]) -> list[Row]:
    """One row per model, best first, then the ablations: measures, how far the reference is ahead, what a fit costs."""
    rows: dict[str, Row] = {}
    for row in everyone:
        rows.setdefault(row["model"], {"model": row["model"], "values": {}})["values"][row["measure"]] = row["value"]
    ahead = {row["against"]: row for row in differences if row["measure"] == HEADLINE}
    for model, row in rows.items():
        mine = [fit for fit in fits if fit["model"] == model]
        seconds, peaks = ([fit[key] for fit in mine if fit[key] is not None] for key in ("seconds", "peak_mb"))
        row |= {"ahead": ahead.get(model), "color": styles[model]["color"] if model in styles else None}
        row |= {"seconds": sum(seconds) / len(seconds) if seconds else None, "peak_mb": max(peaks, default=None)}
    board = sorted(rows.values(), key=lambda row: (_is_ablation(row["model"]), -row["values"].get(HEADLINE, -1)))
    return [row | {"rank": rank} for rank, row in enumerate(board, 1)]


def _verdict(differences: list[Row]) -> Row | None:
    """The difference to the best model that is neither an ablation nor the gate's pick; None where there is no other."""
    others = [row for row in differences if row["against"] != PUBLISHED and not _is_ablation(row["against"])]
    return max(others, key=lambda row: row["against_value"], default=None)


def _is_ablation(model: str) -> bool:
    return model.startswith((f"{MODEL} ", f"{MODEL},"))


def _strata(scores: list[Row]) -> dict[str, Any]:
    """A heat map: per model the headline measure in each stratum, with its share of the stratum's best."""
    present = {row["stratum"] for row in scores}
    columns = [name for name in STRATA if name in present] + sorted(present.difference(STRATA))
    users = {name: max(row["users"] or 0 for row in scores if row["stratum"] == name) for name in columns}
    best = {name: max(row["value"] for row in scores if row["stratum"] == name) for name in columns}
    values = {(row["model"], row["stratum"]): row["value"] for row in scores}
    cells = {
        model: [
            {"value": value, "share": value / best[name] if value is not None and best[name] else 0.0}
            for name in columns
            for value in [values.get((model, name))]
        ]
        for model in dict.fromkeys(row["model"] for row in scores if row["stratum"] == "all")
    }
    return {"columns": columns, "users": users, "rows": cells}


def _settings(fits: list[Row]) -> Iterator[dict[str, Any]]:
    """Per horizon and model: what was chosen at every origin alike, and a table of what changed."""
    for horizon, model in dict.fromkeys((row["horizon_days"], row["model"]) for row in fits):
        mine = [row for row in fits if (row["horizon_days"], row["model"]) == (horizon, model)]
        choices = {row["as_of"]: _flat(json.loads(row["choice"] or "{}")) for row in mine}
        names = dict.fromkeys(name for choice in choices.values() for name in choice)
        changing = [name for name in names if len({choice.get(name) for choice in choices.values()}) > 1]
        fixed = {name: next(iter(choices.values()))[name] for name in names if name not in changing}
        if names:
            yield {"horizon_days": horizon, "model": model, "fixed": fixed, "changing": changing, "choices": choices}


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """A JSON value as dotted names and short texts."""
    if isinstance(value, dict) and value:
        return {key: text for part in value for key, text in _flat(value[part], f"{name}.{part}".lstrip(".")).items()}
    if isinstance(value, list) and not any(isinstance(part, dict | list) for part in value):
        texts = [_text(part) for part in value]
        return {name: ", ".join(texts[:MOST_VALUES]) + (f" … ({len(texts)})" if len(texts) > MOST_VALUES else "")}
    return {name: _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)

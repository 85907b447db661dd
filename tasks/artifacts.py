"""What a person sees in Prefect's UI: quality results, model against baselines, a sample of lists with reasons."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

from prefect.artifacts import create_table_artifact

from tasks.errors import harmless
from tasks.warehouse import exists, open_warehouse, scalar, set_variables

SAMPLED_USERS = 5
SAMPLED_RANKS = 5


def _key(what: str, source: str) -> str:
    """Prefect allows lower-case letters, digits and dashes in the key of an artifact."""
    return re.sub("[^a-z0-9]+", "-", f"{what}-{source}".lower()).strip("-")


def inert(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose texts Prefect's UI shows as they are: it takes each for markdown, with links, images and HTML."""
    return [{name: _inert(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]


def _inert(text: str) -> str:
    return re.sub(r"([\\`*~\[\]<>|!#&$@]|:(?=//)|(?<=www)\.)", r"\\\1", harmless(text).replace("\n", " "))


def show_quality(results: list[dict[str, Any]], source: str) -> None:
    """Every expectation of the run, failures first."""
    columns = ("table_name", "rule", "severity", "success", "checked", "failed", "observed")
    rows = [{name: result.get(name) for name in columns} for result in results]
    rows.sort(key=lambda row: (row["success"], row["severity"], row["table_name"], row["rule"]))
    create_table_artifact(
        inert(rows), key=_key("quality", source), description="Expectations on deliveries, staging and lists"
    )


def metric_table(home: Path, as_of: date) -> list[dict[str, Any]]:
    """Per list and ranker the mean of each metric over the holdouts, best NDCG first."""
    with open_warehouse(home) as warehouse:
        if not exists(warehouse, "mart.metrics"):
            return []
        pooled = (
            "select list, ranker, k, metric, sum(value * users) / sum(users) as mean from mart.metrics"
            " where as_of = getvariable('as_of') group by all"
        )
        pivot = f"pivot ({pooled}) on metric using any_value(mean) group by list, ranker, k"
        query = f"from ({pivot}) order by list desc, ndcg desc, ranker"
        set_variables(warehouse, as_of=as_of)
        if not scalar(warehouse, "select count(*) from mart.metrics where as_of = $as_of", as_of=as_of):
            return []
        return warehouse.sql(query).to_arrow_table().to_pylist()


def show_metrics(metrics: list[dict[str, Any]], as_of: date, source: str) -> None:
    """The rows of `metric_table`: model against baselines on the holdouts before `as_of`."""
    create_table_artifact(inert(metrics), key=_key("metrics", source), description=f"Holdouts before {as_of}")


def show_sample(home: Path, as_of: date, source: str) -> None:
    """The head of the lists of a few users, with reasons."""
    query = (
        "select list, user_id, rank, item_id, score, model, reason, reason_item_id from mart.recommendations"
        " where as_of = $as_of and rank <= $ranks and user_id in ("
        "   select distinct user_id from mart.recommendations where as_of = $as_of order by hash(user_id) limit $users)"
        " order by user_id, list desc, rank"
    )
    with open_warehouse(home) as warehouse:
        parameters = {"as_of": as_of, "ranks": SAMPLED_RANKS, "users": SAMPLED_USERS}
        rows = warehouse.sql(query, params=parameters).to_arrow_table().to_pylist()
    create_table_artifact(inert(rows), key=_key("lists", source), description=f"A sample of the lists of {as_of}")

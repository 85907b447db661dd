"""A home whose lists carry the mark of their run in every row, so that readers who are shown a mix of two versions notice.

No model is trained: run `version` of a date gives user u at rank r item (5 u + r + version) mod items, and writes its run_id
into every reason, every similar item, the gate's sentence and, as a number, the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from tasks.publish import publish
from tasks.runs import ensure_runs
from tasks.warehouse import open_warehouse, transaction

FIRST_DATE = date(2024, 1, 1)
SCORED = {
    "recommendations": """
        select date '{as_of}' as as_of, list, printf('user %05d', u) as user_id, cast(r + 1 as integer) as rank,
            'item ' || (5 * u + r + {version} + if(list = 'discover', {items} // 2, 0)) % {items} as item_id,
            cast(1 / (r + 1) as float) as score, 'almanac' as model, 'taste' as reason, '{run_id}' as reason_item_id,
            '{run_id}' as run_id
        from range({users}) as users (u), range({top_k}) as ranks (r), (values ('for_you'), ('discover')) as lists (list)
        order by list desc, u, r""",
    "item_recommendations": """
        select date '{as_of}' as as_of, 'item ' || i as item_id, cast(r + 1 as integer) as rank,
            '{run_id} ' || r as similar_item_id, cast(1 / (r + 1) as float) as score, '{run_id}' as run_id
        from range({items}) as items (i), range({top_k}) as ranks (r)
        order by i, r""",
    "metrics": """
        select date '{as_of}' as as_of, '{run_id}' as run_id, list, ranker, date '{as_of}' - 7 * week as holdout_date, metric,
            cast({top_k} as bigint) as k, cast({version} as double) as value, cast({users} as bigint) as users
        from (values ('for_you'), ('discover')) as lists (list), (values ('almanac'), ('popularity')) as rankers (ranker),
            (values ('ndcg'), ('recall')) as metrics (metric), (values (1), (2)) as weeks (week)""",
    "gate": """
        select date '{as_of}' as as_of, '{run_id}' as run_id, list, 'almanac' as ranker, cast(null as varchar) as blocked_by,
            0.1 as difference, 0.01 as lower_bound, '{run_id}' as why
        from (values ('for_you'), ('discover')) as lists (list)""",
}


@dataclass(frozen=True)
class MarkedHome:
    """A home and the size of its lists."""

    home: Path
    users: int = 20
    items: int = 30
    top_k: int = 5

    def score(self, version: int, as_of: date) -> str:
        """Leaves a run as it is before it publishes; returns its id."""
        run_id = f"run{version:04d}"
        self.home.mkdir(exist_ok=True)
        values = {"as_of": as_of, "run_id": run_id, "version": version}
        values |= {"users": self.users, "items": self.items, "top_k": self.top_k}
        with open_warehouse(self.home) as warehouse, transaction(warehouse):
            ensure_runs(warehouse)
            for table, query in SCORED.items():
                warehouse.execute(f"create or replace table scored.{table} as {query.format(**values)}")
                warehouse.execute(f"create table if not exists mart.{table} as from scored.{table} limit 0")
            warehouse.execute(
                "insert into mart.runs by name select $run_id as run_id, 'marked' as source, $as_of as as_of,"
                " 'running' as status, $at as started_at, $users as user_count",
                {"run_id": run_id, "as_of": as_of, "at": at(version), "users": self.users},
            )
        return run_id

    def publish(self, version: int, as_of: date, postgres: str | None = None, history_days: int = 90) -> Path:
        """Publishes run `version` of a date; returns the serving file that readers are shown."""
        run_id = self.score(version, as_of)
        publish(self.home, as_of, run_id, at(version), history_days, postgres)
        return self.served

    @property
    def served(self) -> Path:
        return (self.home / "serving/almanac.duckdb").resolve()


def at(version: int) -> datetime:
    """When a run started: one an hour."""
    return datetime.combine(FIRST_DATE, datetime.min.time()) + timedelta(hours=version)

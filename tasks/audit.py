"""The last look at scored lists before they are published."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from tasks.errors import AuditError
from tasks.sources import Source
from tasks.validate import record
from tasks.warehouse import open_warehouse, select, set_variables

LISTS = (
    "as_of date, list varchar, user_id varchar, rank integer, item_id varchar, score float, model varchar,"
    " reason varchar, reason_item_id varchar, run_id varchar"
)


def audit(home: Path, source: Source, as_of: date, top_k: int, run_id: str) -> list[dict]:
    """Checks `scored.*` against the graph; raises `AuditError` before anything is published when a promise is broken."""
    with open_warehouse(home) as warehouse:
        warehouse.execute(f"create table if not exists mart.recommendations ({LISTS})")
        set_variables(warehouse, as_of=as_of, top_k=top_k, repeats=source.repeats)
        results = [
            {"table_name": "scored.recommendations", "rule": check["rule"], "severity": check["severity"]}
            | {"success": check["violations"] == 0, "failed": check["violations"]}
            for check in select(warehouse, "audit/lists").to_pylist()
        ]
        record(warehouse, results, run_id)
    broken = [
        f"{result['rule']} ({result['failed']:,} violations)"
        for result in results
        if result["severity"] == "critical" and not result["success"]
    ]
    if broken:
        raise AuditError(
            f"lists for {as_of} are not published: {'; '.join(broken)}. The last publication is still served"
        )
    return results

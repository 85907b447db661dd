"""The health check as a flow: a failed run in Prefect, and a notification, where somebody should look."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from flows.cli_status import look
from tasks.errors import RunError
from tasks.notify import announce


class HealthConfig(BaseModel):
    """Whose health, and who is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="folder of warehouse, models and serving files")
    notify: tuple[str, ...] = Field(default=(), description="Prefect notification blocks that are told of trouble")


@flow(name="almanac-health")
def health(config: HealthConfig) -> str:
    """The date of the newest lists; raises `RunError` where `almanac status --check` would exit with 1: lists are late, the
    last run went wrong, alarms are open. It neither waits for a run nor stops one.
    """
    found = look(config.home.resolve())
    if found["troubles"]:
        told = "; ".join(found["troubles"])
        about = (
            date.fromisoformat(found["served"]["as_of"]) if found["served"] else flow_run.scheduled_start_time.date()
        )
        announce("health.warning", str(found["source"]), about, str(flow_run.id), told, notify=config.notify)
        raise RunError(f"{config.home} needs a look: {told}; see almanac status --home {config.home}")
    return found["served"]["as_of"]

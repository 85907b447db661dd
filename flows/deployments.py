"""What a Prefect server is given to run for one source: daily, retrain, backfill and health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from flows.configuration import BackfillConfig, PublishConfig, RunConfig
from tasks.errors import UsageError
from tasks.sources import load_source

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

Weekday = Literal["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
WAIT_MINUTES = 720  # for a run started by hand to end
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")  # as cron counts them


class Schedules(BaseModel):
    """When the deployments of one source are due, in its time zone, as cron lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str = Field(default="0 5 * * *", description="when the lists of the day are made")
    retrain: Literal["daily", "weekly", "never"] = Field(default="weekly", description="how often a model is trained")
    retrain_day: Weekday = Field(default="monday", description="weekday of the training, where it is weekly")
    health_cron: str = Field(default="0 12 * * *", description="when health looks for late and failed runs")

    def of(self, deployment: str) -> str | None:
        """The cron line of a deployment; None where it is started by hand.

        On a day either `daily` or `retrain` is due, never both. Raises `UsageError` where `cron` does not allow that.
        """
        if deployment == "health":
            return self.health_cron
        if deployment == "backfill" or (deployment == "retrain" and self.retrain != "weekly"):
            return None
        if self.retrain != "weekly":
            return self.cron
        minute_and_hour, days = self.cron.split()[:2], self.cron.split()[2:]
        if days != ["*", "*", "*"]:
            raise UsageError(
                f"--cron {self.cron!r} with --retrain weekly must be a time of every day, such as '0 5 * * *'; "
                f"or take --retrain daily or never"
            )
        weekday = WEEKDAYS.index(self.retrain_day)
        others = ",".join(str(day) for day in range(7) if day != weekday)
        return f"{' '.join(minute_and_hour)} * * {weekday if deployment == 'retrain' else others}"


def deployments(config: RunConfig, schedules: Schedules) -> dict[str, list[RunnerDeployment]]:
    """The deployments by queue: `runs` write and go one at a time, `checks` only look and wait for nobody.

    Raises `UsageError` where a schedule is no cron line.
    """
    from flows.backfill import backfill
    from flows.daily import daily
    from flows.health import health

    retrain = {"retrain": schedules.retrain, "wait_minutes": WAIT_MINUTES}
    watched = {"home": str(config.home), "notify": list(config.notify)}
    made = {
        "daily": (daily, stated(config, RunConfig) | retrain, "The lists of the day"),
        "retrain": (
            daily,
            stated(config, RunConfig) | {"retrain": "daily", "wait_minutes": WAIT_MINUTES},
            "The lists of the day, from a new model",
        ),
        "backfill": (backfill, stated(config, BackfillConfig) | retrain, "The lists of many dates, chosen in the form"),
        "health": (health, watched, "Fails when lists are late or the last run went wrong"),
    }
    zone = load_source(config.source).time_zone
    built = {
        name: _deployment(flow, name, about, schedules.of(name), zone, parameters)
        for name, (flow, parameters, about) in made.items()
    }
    checks = [built.pop("health")]
    return {"runs": list(built.values()), "checks": checks}


def stated(config: RunConfig, kind: type[PublishConfig]) -> dict[str, Any]:
    """The fields of `kind` that are not left at their default, as JSON; a secret is the reference that was given."""
    names = set(kind.model_fields) - {"retrain", "as_of"}
    found = config.model_dump(mode="json", include=names, exclude_defaults=True)
    for name in found:
        if isinstance(value := getattr(config, name), SecretStr):
            found[name] = value.get_secret_value()
    return found | {"home": str(config.home)}


def _deployment(
    flow: Any, name: str, about: str, cron: str | None, zone: str, parameters: dict[str, Any]
) -> RunnerDeployment:
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    try:
        schedules = [CronSchedule(cron=cron, timezone=zone)] if cron else []
    except ValidationError as error:
        raise UsageError(f"{cron!r} is no cron line; write five fields, such as '0 5 * * *'") from error
    return RunnerDeployment.from_flow(
        flow,
        name,
        description=about,
        schedules=schedules,
        parameters={"config": parameters},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )

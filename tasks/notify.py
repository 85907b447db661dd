"""Tells Prefect, and whoever is behind a notification block, how a run went; neither can make a run fail."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import date
from email.message import EmailMessage
from typing import Any, Literal

from tasks.files import plain

logger = logging.getLogger("almanac")

Event = Literal["run.published", "run.held", "run.refused", "run.failed", "health.warning"]
SENT = ("run.held", "run.refused", "run.failed", "health.warning")  # to people; a good day is an event only
LONGEST = 500  # signs of a message
MOST_ALARMS = 20
CREDENTIALS = re.compile(r"(\w+://)[^\s/@]+@|(\b(?:password|passwd|token|secret|key)\s*[=:]\s*)\S+", re.IGNORECASE)


def announce(
    event: Event,
    source: str,
    as_of: date,
    run_id: str,
    message: str | None = None,
    alarms: Sequence[dict[str, Any]] = (),
    notify: Sequence[str] = (),
) -> None:
    """Emits the Prefect event `almanac.<event>` about `almanac.source.<source>`; sends all but good news to blocks.

    alarms: rows of `mart.drift`. notify: Prefect blocks as `type/name`. What fails here is logged as a warning, without the
    block's address, which may hold a secret; credentials in the message are hidden.
    """
    told = [{name: alarm[name] for name in ("severity", "name", "list", "message")} for alarm in alarms]
    body = without_credentials(message or "")
    payload = {"source": source, "as_of": as_of.isoformat(), "run_id": run_id, "message": body, "alarms": told}
    _emit(f"almanac.{event}", source, payload)
    if event not in SENT:
        return
    lines = [body] if body else []
    lines += [f"{alarm['severity']}: {alarm['message']}" for alarm in told[:MOST_ALARMS]]
    subject = f"almanac {source} {as_of}: {event.split('.')[1]}"
    for block in notify:
        try:
            send(block, subject, "\n".join(lines), payload)
        except Exception as error:
            known = f": {error}" if isinstance(error, LookupError) else ""
            logger.warning("notification %s was not sent (%s%s); the run goes on", block, type(error).__name__, known)


def send(block_name: str, subject: str, body: str, payload: dict[str, Any]) -> None:
    """Sends through one Prefect block, by what it is.

    A notification block gets subject and body; a Webhook block a JSON object with all; the credentials of a mail server, of
    prefect-email, an e-mail to whom the name says: `email-server-credentials/NAME?to=a@example.org,b@example.org`.
    Raises `LookupError` for a block that is not there or cannot send, and what the block raises.
    """
    from prefect.blocks.core import Block
    from prefect.blocks.webhook import Webhook
    from prefect.utilities.asyncutils import run_coro_as_sync

    name, _, recipients = block_name.partition("?to=")
    try:
        block: Any = Block.load(name, _sync=True)  # pyright: ignore[reportCallIssue]
    except ValueError:
        raise LookupError("the Prefect server has no block of that type and name") from None
    if isinstance(block, Webhook):
        response: Any = run_coro_as_sync(block.call({"subject": subject, "body": body, **payload}))
        response.raise_for_status()
    elif hasattr(block, "notify"):
        with block.raise_on_failure():
            block.notify(body, subject, _sync=True)
    elif hasattr(block, "get_server") and recipients:
        mail = EmailMessage()
        mail["Subject"], mail["To"], mail["From"] = subject, recipients, block.username or recipients.split(",")[0]
        mail.set_content(body)
        with block.get_server() as server:
            server.send_message(mail)
    else:
        raise LookupError("a block of this type sends nothing; of a mail server, add ?to= and the recipients")


def without_credentials(message: str) -> str:
    """On one line, with what looks like a password or token hidden."""
    hidden = CREDENTIALS.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", message)
    return plain(hidden, LONGEST)


def _emit(name: str, source: str, payload: dict[str, Any]) -> None:
    from prefect.events import emit_event

    resource = {"prefect.resource.id": f"almanac.source.{source}", "prefect.resource.name": source}
    try:
        emit_event(event=name, resource=resource, payload=payload)
    except Exception as error:
        logger.warning("event %s was not emitted (%s); the run goes on", name, type(error).__name__)

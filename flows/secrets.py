"""Secrets, such as the URL of a database: a configuration names where one is kept, and only the step that uses it looks.

Flow parameters, logs, artifacts and `mart.runs.config` therefore hold `env:NAME` or `secret:BLOCK`, never the secret itself.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from tasks.errors import UsageError

REFERENCE = r"^(env:[A-Za-z_][A-Za-z0-9_]*|secret:[a-z0-9][a-z0-9-]*)$"


def resolve(text: str | None) -> str | None:
    """The secret that `env:NAME` or `secret:BLOCK` (a Prefect Secret block) refers to; any other text is itself.

    Raises `UsageError` where the variable or block is missing or holds no text.
    """
    kind, _, name = (text or "").partition(":")
    if kind == "env":
        if value := os.environ.get(name):
            return value
        raise UsageError(f"{text}: no environment variable {name} in the process that runs the flow; set it there")
    return _block(name) if kind == "secret" else text


def kept(text: str | None, variable: str) -> str | None:
    """A reference to a secret given on the command line: the text goes into this process's environment as `variable`."""
    if text is None or re.match(REFERENCE, text):
        return text
    os.environ[variable] = text
    return f"env:{variable}"


def masked(message: str, secret: str | None) -> str:
    """The message without the secret and, where that is a URL, without its password."""
    if not secret:
        return message
    password = urlsplit(secret).password if "://" in secret else None
    for hidden in filter(None, (secret, password, unquote(password or ""))):
        message = message.replace(hidden, "***")
    return message


def _block(name: str) -> str:
    from prefect.blocks.system import Secret

    try:
        value = Secret.load(name, _sync=True).get()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    except ValueError as error:
        raise UsageError(
            f"secret:{name}: the Prefect server has no Secret block of that name; make it under Blocks in its UI"
        ) from error
    if not isinstance(value, str) or not value:
        raise UsageError(f"secret:{name}: the Prefect Secret block holds no text; store the URL as a string")
    return value

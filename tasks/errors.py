"""Every error a person can meet, by who must act.

AlmanacError
├── UsageError          exit 2: the command or configuration is wrong; nothing was read
├── RunError            exit 1: the run broke; the last publication is still served
│   ├── ExpectationError   an expectation could not be evaluated, which is never a pass
│   └── AuditError         the lists failed the checks before publication
├── GateHeld            exit 3: the new lists are not fit to be published; the last publication stays served
└── DataRefused         exit 3: the data is not fit to publish from; nothing published was changed
    ├── ContractError      a file, a column or a type the source promises is missing, broken or empty
    ├── RejectLimitError   more rows are broken than the source allows
    └── DataQualityError   a critical expectation failed
"""

import re

LONGEST = 300  # characters of a library's message that a person is shown


class AlmanacError(Exception):
    """Base of all errors that carry a message for a person instead of a traceback; what a file put into it stays harmless."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(harmless(message))


class UsageError(AlmanacError):
    """The command line or a configuration file is wrong."""

    exit_code = 2


class RunError(AlmanacError):
    """A step of the run failed."""


class ExpectationError(RunError):
    """An expectation raised an exception instead of giving a result."""


class AuditError(RunError):
    """The scored lists broke a promise of the published tables."""


class GateHeld(AlmanacError):
    """A limit of the publish gate was broken: what is published stays."""

    exit_code = 3


class DataRefused(AlmanacError):
    """The delivered data was refused."""

    exit_code = 3


class ContractError(DataRefused):
    """The input lacks a file, column or type that the source's SELECT reads, or holds one that cannot be read."""


class RejectLimitError(DataRefused):
    """The share of broken rows is above `max_reject_share` of the source."""


class DataQualityError(DataRefused):
    """A critical expectation about a whole table failed."""


def harmless(text: str) -> str:
    """Text without signs that a terminal acts on or that turn the order of what is read; lines stay apart."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in text)


def brief(error: Exception) -> str:
    """What a library's error says, in one short line: its first paragraph and the file, without the query."""
    told = [line for line in str(error).split("\n\n")[0].splitlines() if not line.startswith("Original Line:")]
    file = re.search(r"^ *file = (.+)$", str(error), re.MULTILINE)
    line = " ".join(" ".join([*([f"{file[1]}:"] if file else []), *told]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"

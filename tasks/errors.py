"""Every error a person can meet, by who must act.

AlmanacError
├── UsageError          exit 2: the command or configuration is wrong; nothing was read
├── RunError            exit 1: the run broke; the last publication is still served
│   ├── ExpectationError   an expectation could not be evaluated, which is never a pass
│   └── AuditError         the lists failed the checks before publication
└── DataRefused         exit 3: the data is not fit to publish from; nothing published was changed
    ├── ContractError      a file, a column or a type the source promises is missing
    ├── RejectLimitError   more rows are broken than the source allows
    └── DataQualityError   a critical expectation failed
"""


class AlmanacError(Exception):
    """Base of all errors that carry a message for a person instead of a traceback."""

    exit_code = 1


class UsageError(AlmanacError):
    """The command line or a configuration file is wrong."""

    exit_code = 2


class RunError(AlmanacError):
    """A step of the run failed."""


class ExpectationError(RunError):
    """An expectation raised an exception instead of giving a result."""


class AuditError(RunError):
    """The scored lists broke a promise of the published tables."""


class DataRefused(AlmanacError):
    """The delivered data was refused."""

    exit_code = 3


class ContractError(DataRefused):
    """The input lacks a file, column or type that the source's SELECT reads."""


class RejectLimitError(DataRefused):
    """The share of broken rows is above `max_reject_share` of the source."""


class DataQualityError(DataRefused):
    """A critical expectation about a whole table failed."""

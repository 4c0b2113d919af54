"""The exception tree: what a user can meet, and the exit code of each.

LlsflowError                 a sentence for the user, never a traceback
├── ConfigError              the configuration is wrong: every mistake at once (exit 2)
├── DataError                rows, files or splits that cannot be used
├── ModelError               a model folder, tokenizer or template that cannot be used
├── TrainingError            training that cannot go on (a loss that is not a number, ...)
├── NotFoundError            a data set, benchmark, job or model of that name is not there
├── ConflictError            the name is taken by something else, or the thing is in use or has ended
│   └── BusyError            it is in use for now: later it will not be
├── UnavailableError         Prefect, MLflow or an endpoint does not answer
├── StorageError             LLSFLOW_HOME cannot be written: read-only, full, not a folder
└── Stopped                  the user asked to stop; the work so far is kept (exit 130)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where it stands and what to do about it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class LlsflowError(Exception):
    """Base of every error that is the user's to mend; its text is the whole message."""

    exit_code = 1


class MistakesError(LlsflowError):
    """Several mistakes, told together."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(m) for m in self.mistakes))

    def __reduce__(self) -> tuple[type[MistakesError], tuple[tuple[Mistake, ...]]]:
        # an exception is made again from its text, which would cut the mistakes into letters
        return type(self), (self.mistakes,)


class ConfigError(MistakesError):
    """The configuration is wrong: every mistake at once, each with its place."""

    exit_code = 2


class DataError(MistakesError):
    """Rows, files or splits that cannot be used: each with its file and row."""


class ModelError(LlsflowError):
    """A model folder, tokenizer or chat template that cannot be used."""


class TrainingError(LlsflowError):
    """Training that cannot go on."""


class GateError(LlsflowError):
    """A candidate that is worse than its baseline; what was computed stays."""


class NotFoundError(LlsflowError):
    """A data set, benchmark, job or model of that name is not there."""


class ConflictError(LlsflowError):
    """The name is taken by something else, or the thing is in use or has ended."""


class BusyError(ConflictError):
    """The thing is in use for now: later it will not be."""


class UnavailableError(LlsflowError):
    """A service that the run needs does not answer."""


class StorageError(LlsflowError):
    """LLSFLOW_HOME cannot be written."""


class Stopped(LlsflowError):
    """The user asked to stop; what was done so far is kept."""

    exit_code = 130

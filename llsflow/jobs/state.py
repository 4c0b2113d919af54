"""Which jobs are under way, and whether a process of this machine does one now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from llsflow import home
from llsflow.errors import StorageError, UnavailableError
from llsflow.schema.jobs import JobStatus

UNDER_WAY = (JobStatus.SCHEDULED, JobStatus.IN_PROGRESS)


_NAME_LENGTH = 200
"""Of what file systems take in a name (255), with room for what stands before and after it."""


AWAY = (UnavailableError, StorageError)
"""What a store raises that may be back in a moment: a server that starts anew, a disk that gets free."""

PATIENCE_SECONDS = 60.0
"""For a store to be back."""

_RETRY_SECONDS = 0.5

T = TypeVar("T")


def insist(write: Callable[[], T]) -> T:
    """Return what a write to the store returns, tried again for as long as patience lasts.

    Raises:
        UnavailableError, StorageError: the store was away for all that time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return write()
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def file_name(job_id: str) -> str:
    """Return the job's id as a part of a file's name; a long one is cut, and told apart by its digest."""
    name = quote(job_id, safe="")
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 33]}-{home.digest(job_id)[:32]}"


def lock_name(job_id: str) -> str:
    """Return the name of the lock that the process of a job holds for as long as it lives."""
    return f"job-{file_name(job_id)}"


def alive(job_id: str) -> bool:
    """Return whether a process of this machine does the job now."""
    with home.alone(lock_name(job_id)) as free:
        return not free

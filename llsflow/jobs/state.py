"""Which jobs are under way, and whether a process of this machine does one now."""

from __future__ import annotations

from urllib.parse import quote

from llsflow import home
from llsflow.schema.jobs import JobStatus

UNDER_WAY = (JobStatus.SCHEDULED, JobStatus.IN_PROGRESS)


_NAME_LENGTH = 200
"""Of what file systems take in a name (255), with room for what stands before and after it."""


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

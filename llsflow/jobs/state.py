"""Which jobs are under way, and whether a process of this machine does one now."""

from __future__ import annotations

from urllib.parse import quote

from llsflow import home
from llsflow.schema.jobs import JobStatus

UNDER_WAY = (JobStatus.SCHEDULED, JobStatus.IN_PROGRESS)


def lock_name(job_id: str) -> str:
    """Return the name of the lock that the process of a job holds for as long as it lives."""
    return f"job-{quote(job_id, safe='')}"


def alive(job_id: str) -> bool:
    """Return whether a process of this machine does the job now."""
    with home.alone(lock_name(job_id)) as free:
        return not free

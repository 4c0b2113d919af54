"""The names under which Prefect knows us."""

from __future__ import annotations

FLOW = "llsflow"
"""The flow of every run, whoever started it."""

TAG = "llsflow"
"""On everything of ours."""


def jobs_deployment(work_pool: str) -> str:
    """Return the name of the deployment whose runs are the jobs of a server; each pool has its own."""
    return f"{work_pool}-jobs"

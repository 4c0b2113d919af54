"""Who runs a plan: the seam between the command line or the API and Prefect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from llsflow.schema.plan import Plan, StepResult
from llsflow.steps.context import PlanRun


class FlowState(StrEnum):
    """Where a submitted run is, as far as Prefect knows."""

    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Prefect has no such run."""


@dataclass(frozen=True)
class FlowStatus:
    """A submitted run."""

    state: FlowState
    message: str = ""
    page: str | None = None
    """Its page in Prefect."""


class Submitter(Protocol):
    """Hands jobs to a worker; light, and safe to call from many threads."""

    def ready(self) -> bool:
        """Return whether a job that is submitted now will be taken: the server answers and knows the deployment."""

    def submit(self, job_id: str, attempt: int, tags: Sequence[str] = ()) -> str:
        """Have the job run and return the id of its flow run; the same job and attempt give the same one.

        Raises:
            UnavailableError: Prefect does not answer, or does not know the deployment yet.
        """

    def statuses(self, flow_run_ids: Sequence[str]) -> Mapping[str, FlowStatus]:
        """Return where each run is.

        Raises:
            UnavailableError: Prefect does not answer.
        """

    def cancel(self, flow_run_id: str) -> None:
        """Have the run stopped: at once where it waits, at its next step boundary where it runs.

        Raises:
            UnavailableError: Prefect does not answer.
        """


class Runner(Protocol):
    """Runs plans."""

    def start(self) -> None:
        """Begin to bring up what running needs, and return at once."""

    def warm(self, modules: Sequence[str] = ()) -> None:
        """Import what running needs, and `modules`, in the background while the rest comes up."""

    def run(self, plan: Plan, plan_run: PlanRun) -> dict[str, StepResult]:
        """Run the plan in this process and return each step's result by name.

        Raises:
            UnavailableError: what runs the steps did not come up.
            Stopped: the user asked to stop.
            LlsflowError: a step cannot be done.
        """

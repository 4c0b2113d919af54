"""Who runs a plan: the seam between the command line or the API and Prefect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llsflow.schema.plan import Plan, StepResult
from llsflow.steps.context import PlanRun


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

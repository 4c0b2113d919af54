"""What a step is handed: its record, its inputs, a folder to work in, the run that records it and who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llsflow.schema.plan import Plan, Step, StepResult
from llsflow.steps.checkpoints import CheckpointFacts
from llsflow.tracking import Run, Tracking


@dataclass(frozen=True)
class Progress:
    """How far a step is: `done` of `total` in `unit`, with the numbers worth watching."""

    done: int
    total: int
    unit: str
    metrics: Mapping[str, float] = field(default_factory=dict)


class Watcher(Protocol):
    """Who is told what happens: the terminal, a Prefect artifact, a job record."""

    def step_started(self, step: Step) -> None:
        """The step begins (or goes on)."""

    def step_skipped(self, step: Step, result: StepResult) -> None:
        """The step's result is there already."""

    def progress(self, step: Step, progress: Progress) -> None:
        """The step moved on."""

    def checkpoint(self, step: Step, checkpoint: CheckpointFacts) -> None:
        """A checkpoint of the training step is whole; the same one may be told again."""

    def step_finished(self, step: Step, result: StepResult) -> None:
        """The step is done."""


@dataclass(frozen=True)
class Origin:
    """Where a plan comes from: enough to do it again."""

    config: str
    """The resolved configuration as YAML."""
    overrides: tuple[str, ...] = ()
    command: str = ""
    """The command line that does it again."""


@dataclass
class PlanRun:
    """One run of a plan: its record in MLflow, its watchers, and whether the user asked to stop."""

    plan: Plan
    tracking: Tracking
    run: Run
    watchers: list[Watcher]
    stopping: Callable[[], bool]
    origin: Origin
    flow_url: str | None = None
    """Page of the Prefect flow run, where there is one."""


@dataclass
class StepContext:
    """What one step function sees."""

    step: Step
    inputs: Mapping[str, StepResult]
    """By role."""
    folder: Path
    """Where the step writes; kept between tries, renamed into place when the step is done."""
    run: Run
    plan_run: PlanRun

    def report(self, progress: Progress) -> None:
        """Tell every watcher."""
        for watcher in self.plan_run.watchers:
            watcher.progress(self.step, progress)

    def report_checkpoint(self, checkpoint: CheckpointFacts) -> None:
        """Tell every watcher."""
        for watcher in self.plan_run.watchers:
            watcher.checkpoint(self.step, checkpoint)

"""The Plan as data: steps with content-addressed keys, and what a finished step leaves."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from llsflow.schema.base import Record
from llsflow.schema.experiment import Experiment


class StepState(StrEnum):
    """What a run will do with a step."""

    RUN = "run"
    RESUME = "resume"
    SKIP = "skip"


class Estimate(Record):
    """What a step is expected to cost; null where nothing is known beforehand."""

    rows: int | None = None
    tokens: int | None = None
    optimizer_steps: int | None = None
    parameters: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    seconds: float | None = None


class Step(Record):
    """One step: a pure function of its settings and inputs."""

    name: str
    """Unique in the plan: train, evaluate-base, …"""
    kind: str
    """The function in llsflow/steps that runs it."""
    key: str
    """sha256 of kind, settings, the inputs' keys and the step's code."""
    settings: dict[str, Any]
    """The slice of the experiment that decides the result."""
    locations: dict[str, Any] = {}
    """Paths and display choices: needed to run, without effect on the result."""
    inputs: dict[str, str] = {}
    """Role in this step -> name of the step that provides it."""
    state: StepState = StepState.RUN
    reason: str = ""
    """Why it will run, go on or be skipped."""
    estimate: Estimate = Estimate()


class Plan(Record):
    """An experiment compiled into steps, in the order in which they run."""

    key: str
    """sha256 of the steps' keys."""
    experiment: Experiment
    steps: list[Step]

    def step(self, name: str) -> Step:
        """Return the step of that name."""
        return next(step for step in self.steps if step.name == name)


class StepResult(Record):
    """What a finished step leaves: where, and a summary small enough for any log."""

    name: str
    kind: str
    key: str
    folder: str
    """Absolute path of the step's output folder."""
    files: dict[str, str] = {}
    """Relative path -> sha256 (hex) of the content, checked before the result is used again."""
    libraries: dict[str, str] = {}
    """Versions of the libraries that decided its numbers; they are told, and no part of the key."""
    open: bool = False
    """Something may still come: rows that an endpoint did not answer are asked again by the next run."""
    summary: dict[str, Any] = {}
    """Small JSON: counts, scores, names."""
    run_id: str | None = None
    """MLflow run of the step."""
    seconds: float = 0.0

"""Step `gate`: fails the run of a model that is worse than its baseline; a trained one that passed is the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llsflow.errors import GateError
from llsflow.schema.benchmarks import CHAMPION
from llsflow.steps.context import StepContext


def run(context: StepContext) -> dict[str, Any]:
    """Move the alias, or fail; the report and the comparison are there either way.

    Raises:
        GateError: the comparison found the model worse than the gate allows.
    """
    failures = context.inputs["compare"].summary["gate"]["failures"]
    if failures:
        raise GateError("the gate is not passed: " + "; ".join(failures))
    name = context.step.settings["registered"]
    if name is None or "export" not in context.inputs:
        return {"passed": True}
    recorded = context.inputs["record"].summary
    folder = Path(context.inputs["export"].folder) / "model"
    version = context.plan_run.run.register(name, recorded["model_id"], folder, aliases=(CHAMPION,))
    return {"passed": True, "champion": name, "version": version}

"""What a step is given by the steps before it."""

from __future__ import annotations

from pathlib import Path

from llsflow.steps.context import StepContext


def model_folder(context: StepContext) -> str:
    """Return the model that a step starts from: the one an earlier step wrote, or the user's."""
    if "model" in context.inputs:
        return str(Path(context.inputs["model"].folder) / "model")
    return str(context.step.locations["model"])

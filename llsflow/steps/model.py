"""Step `model`: build a new model from its config."""

from __future__ import annotations

from typing import Any

from llsflow.models.build import build
from llsflow.models.describe import describe_folder
from llsflow.schema.models import ModelInit
from llsflow.steps.context import StepContext


def run(context: StepContext) -> dict[str, Any]:
    """Write a Hugging Face folder with random weights to `model/`."""
    settings = context.step.settings
    folder = context.folder / "model"
    build(ModelInit.model_validate(settings["init"]), settings["seed"], folder)
    facts = describe_folder(folder)
    context.run.log_params({"parameters": facts.parameters, "seed": settings["seed"]})
    return {"parameters": facts.parameters, "vocabulary": facts.vocab_size, "context": facts.context_length}

"""Step `export`: the last checkpoint, or the best, as a plain Hugging Face folder, of a whole model or of adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from llsflow.errors import TrainingError
from llsflow.models.adapters import load_merged
from llsflow.models.describe import describe_folder
from llsflow.models.load import load_tokenizer, save_folder
from llsflow.steps.context import StepContext
from llsflow.training.checkpoints import FACTS, STATE


def run(context: StepContext) -> dict[str, Any]:
    """Write `model/`: safetensors in the training's dtype, tokenizer, chat template, generation config.

    Adapters are merged into their base, or, when the recipe says so, written alone.
    """
    trained = context.inputs["train"]
    which = context.step.settings["export_checkpoint"]
    place, step, loss = _chosen(trained.summary, which)
    checkpoint = Path(trained.folder) / place
    dtype = context.step.settings["dtype"]
    folder = context.folder / "model"
    folder.mkdir(exist_ok=True)
    if context.step.settings["export"] == "adapter":
        for file in checkpoint.iterdir():
            if file.name not in (STATE, FACTS):
                shutil.copy2(file, folder / file.name)
    else:
        save_folder(
            load_merged(checkpoint, dtype=dtype), load_tokenizer(checkpoint, needs_template=False), folder, dtype
        )
    facts = describe_folder(folder)
    return {
        "checkpoint": {"which": which, "step": step, "steps": trained.summary["steps"], "validation_loss": loss},
        "parameters": facts.parameters,
        "bytes": facts.bytes,
        "dtype": dtype,
        "weights_digest": facts.weights_digest,
    }


def _chosen(trained: dict[str, Any], which: str) -> tuple[str, int, float | None]:
    """Return the folder, optimizer step and validation loss of the checkpoint that is exported.

    Raises:
        TrainingError: the best one is asked for, and no validation gave a number.
    """
    if which == "last":
        return trained["checkpoint"], trained["steps"], trained["validation_loss"]
    best = trained["best"]
    if best is None:
        raise TrainingError("recipe.export_checkpoint=best: no validation gave a loss that is a number; take last")
    return best["checkpoint"], best["step"], best["validation_loss"]

"""Step `export`: the last checkpoint as a plain Hugging Face folder, of a whole model or of adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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
    checkpoint = Path(trained.folder) / trained.summary["checkpoint"]
    dtype = context.step.settings["dtype"]
    folder = context.folder / "model"
    folder.mkdir(exist_ok=True)
    if context.step.settings["export"] == "adapter":
        for file in checkpoint.iterdir():
            if file.name not in (STATE, FACTS):
                shutil.copy2(file, folder / file.name)
    else:
        save_folder(load_merged(checkpoint, dtype=dtype), load_tokenizer(checkpoint), folder, dtype)
    facts = describe_folder(folder)
    return {
        "parameters": facts.parameters,
        "bytes": facts.bytes,
        "dtype": dtype,
        "weights_digest": facts.weights_digest,
    }

"""Step `export`: the last checkpoint as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llsflow.models.describe import describe_folder
from llsflow.models.load import load_model, load_tokenizer, save_folder
from llsflow.steps.context import StepContext


def run(context: StepContext) -> dict[str, Any]:
    """Write `model/`: safetensors in the training's dtype, tokenizer, chat template, generation config."""
    trained = context.inputs["train"]
    checkpoint = str(Path(trained.folder) / trained.summary["checkpoint"])
    dtype = context.step.settings["dtype"]
    folder = context.folder / "model"
    folder.mkdir(exist_ok=True)
    save_folder(load_model(checkpoint, dtype=dtype), load_tokenizer(checkpoint), folder, dtype)
    facts = describe_folder(folder)
    return {
        "parameters": facts.parameters,
        "bytes": facts.bytes,
        "dtype": dtype,
        "weights_digest": facts.weights_digest,
    }

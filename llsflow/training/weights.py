"""The weights of a training: loaded to start or to go on, and written to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llsflow.models.adapters import attach, attach_saved, load_merged, save_adapter
from llsflow.models.attention import use_segments
from llsflow.models.load import load_model, save_folder
from llsflow.models.local import pick_device
from llsflow.schema.training import LoraFinetuningConfig
from llsflow.training.checkpoints import Checkpoint
from llsflow.training.inputs import FitInputs


def load_weights(inputs: FitInputs, last: Checkpoint | None) -> Any:
    """Return the model in training mode, with its adapters where the recipe has them.

    Args:
        inputs: of the training.
        last: the checkpoint to go on from; None: from the start.
    """
    config, dtype = inputs.recipe.algorithm_config, held_dtype(inputs)
    if isinstance(config, LoraFinetuningConfig):
        if config.quantize_base:
            device = pick_device(inputs.trainer.accelerator)
            model = load_model(inputs.model, dtype=dtype, device=device, quantized=True, **inputs.load)
        else:
            model = load_merged(inputs.model, dtype=dtype, **inputs.load)
        use_segments(model)
        adapted = attach_saved(model, last.folder, trainable=True) if last else attach(model, config)
        return _ready(adapted, inputs)
    model = load_model(str(last.folder), dtype=dtype) if last else load_merged(inputs.model, dtype=dtype, **inputs.load)
    use_segments(model)
    return _ready(model, inputs)


def _ready(model: Any, inputs: FitInputs) -> Any:
    efficiency = inputs.recipe.training_config.efficiency_config
    if efficiency and efficiency.enable_activation_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def write_weights(model: Any, inputs: FitInputs, folder: Path, weights: dict[str, Any] | None = None) -> None:
    """Write a checkpoint's weights: of a training of adapters the adapters alone.

    Args:
        model: what is trained.
        inputs: of the training.
        folder: where to.
        weights: gathered from all devices; None: the model has them.
    """
    if inputs.recipe.algorithm_config is None:
        save_folder(model, inputs.tokenizer, folder, held_dtype(inputs), weights)
    else:
        save_adapter(model, inputs.tokenizer, folder, inputs.model, inputs.load.get("revision"))


def held_dtype(inputs: FitInputs) -> str:
    """Weights are held in fp32 under mixed precision, else in the computation's dtype."""
    dtype = inputs.recipe.training_config.dtype or "fp32"
    return dtype if inputs.trainer.precision == "true" else "fp32"

"""Log-probabilities of preferred and other answers under the model that a preference optimisation starts from.

Computed once, before training, and kept: training then needs no second model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llsflow.models.adapters import load_merged
from llsflow.models.attention import use_segments
from llsflow.models.load import torch_dtype
from llsflow.models.local import pick_device
from llsflow.models.output import is_plain
from llsflow.training.batches import Examples
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import FitInputs
from llsflow.training.objectives import pair_log_probabilities
from llsflow.training.validation import validation_batches
from llsflow.training.weights import held_dtype


def load_reference(inputs: FitInputs) -> Any:
    """Return the model that the training starts from, ready to be asked."""
    device = pick_device(inputs.trainer.accelerator)
    model = load_merged(inputs.model, dtype=held_dtype(inputs), device=device, **inputs.load)
    use_segments(model)
    return model


def reference_log_probabilities(
    model: Any, inputs: FitInputs, table: ExampleTable, wanted: Examples, on_progress: Callable[[int], None]
) -> NDArray[np.float32]:
    """Return log π₀ of every example's answers, [examples, 2]: chosen, rejected; in nats.

    Args:
        model: the reference.
        inputs: of the training, whose precision and batch size are used.
        table: pairs.
        wanted: examples that are trained on at all; the others are not a number.
        on_progress: told how many are done.
    """
    data = inputs.recipe.training_config.data_config
    assert data is not None  # noqa: S101 - cross_checks refused it
    found = np.full((len(table), 2), np.nan, dtype=np.float32)
    plain = is_plain(model)
    dtype = inputs.recipe.training_config.dtype or "fp32"
    mixed = inputs.trainer.precision == "mixed" and dtype != "fp32"
    done = 0
    for batch in validation_batches(table.lengths[wanted], data.batch_size, 0):
        examples = wanted[batch]
        micro = table.collate(examples).to(model.device)
        precision = torch.autocast(model.device.type, dtype=torch_dtype(dtype)) if mixed else nullcontext()
        with torch.no_grad(), precision:
            found[examples] = pair_log_probabilities(model, micro, plain=plain)[0].float().cpu().numpy()
        done += len(examples)
        on_progress(done)
    return found

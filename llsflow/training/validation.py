"""The objective on examples that are not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from llsflow.training.batches import Examples
from llsflow.training.examples import ExampleTable
from llsflow.training.module import StepModule
from llsflow.training.sharding import is_sharded


def validation_batches(lengths: Any, size: int, most: int) -> list[Examples]:
    """Return the validation's batches: the first `most` of the data set's own order, or (0) all, by length."""
    order = np.arange(len(lengths)) if most else np.argsort(lengths, kind="stable")
    return [order[start : start + size] for start in range(0, len(order), size)][: most or None]


def validate(module: StepModule, trainer: Trainer, examples: ExampleTable, batches: list[Examples]) -> dict[str, float]:
    """Return the objective's mean and its other measures', over the tokens under loss or the pairs.

    Args:
        module: holds the model; left in training mode.
        trainer: gives device, precision and this device's rank.
        examples: the validation's examples.
        batches: those to measure, in batches; each device takes its share.
    """
    sums: dict[str, Any] = {"loss": 0.0, "weight": 0.0}
    module.model.train(False)
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for index in range(trainer.global_rank, _rounds(module, trainer, batches), trainer.world_size):
                # a device that is left over computes along where the others need its share of the weights
                micro = examples.collate(batches[index % len(batches)]).to(module.device)
                measured = module.settings.objective(module.model, micro)
                found: dict[str, Any] = {"loss": measured.loss, "weight": micro.weight, **measured.metrics}
                for name, value in found.items() if index < len(batches) else ():
                    sums[name] = sums.get(name, 0.0) + float(value)
    finally:
        module.model.train()
    if trainer.world_size > 1:  # a device without a batch knows no other measures
        sums = {name: sums.get(name, 0.0) for name in sorted(_every_name(trainer, sums))}
        sums = module.over_devices(sums)
    weight = sums.pop("weight")
    return {name: value / weight for name, value in sums.items()}


def _rounds(module: StepModule, trainer: Trainer, batches: list[Examples]) -> int:
    """Return how many batches are computed on all devices together."""
    if not is_sharded(module.model):
        return len(batches)
    return -(-len(batches) // trainer.world_size) * trainer.world_size


def _every_name(trainer: Trainer, sums: dict[str, Any]) -> set[str]:
    names: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(names, list(sums))
    return {name for found in names for name in found}

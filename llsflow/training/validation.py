"""The loss on rows that are not trained on."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch import Trainer

from llsflow.data.tokens import TokenTable
from llsflow.losses.supervised import IGNORED
from llsflow.training.batches import collate
from llsflow.training.sft import SupervisedModule, loss_sum


def validation_loss(
    module: SupervisedModule, trainer: Trainer, table: TokenTable, batches: tuple[int, int, int]
) -> float:
    """Return the mean loss over all tokens under loss, in nats.

    Args:
        module: holds the model; left in training mode.
        trainer: gives device and precision.
        table: the validation rows.
        batches: rows a batch, most batches (0: all), padding token.
    """
    size, most, pad = batches
    order = np.arange(len(table.lengths)) if most else np.argsort(table.lengths, kind="stable")
    starts = range(0, len(order), size)[: most or None]
    total, learned = 0.0, 0
    module.model.train(False)
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for start in starts:
                batch = collate(table, order[start : start + size], pad).to(module.device)
                total += float(loss_sum(module.model, batch))
                learned += int((batch.labels != IGNORED).sum())
    finally:
        module.model.train()
    return total / learned

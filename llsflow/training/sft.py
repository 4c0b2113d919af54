"""The supervised module: one Lightning batch is one optimizer step, made of its micro-batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from llsflow.errors import TrainingError
from llsflow.losses.supervised import IGNORED, token_loss_sum
from llsflow.schema.training import OptimizerConfig
from llsflow.training.batches import MicroBatch
from llsflow.training.optimizers import build_optimizer, gradient_norm, learning_rate


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did."""

    step: int
    """Optimizer steps done, from 1."""
    loss: float
    """Mean over the step's tokens under loss, in nats."""
    lr: float
    gradient_norm: float
    tokens: int
    """Real tokens, padding not counted."""
    seconds: float


@dataclass(frozen=True)
class ModuleSettings:
    """What the module needs besides the model."""

    optimizer: OptimizerConfig
    schedule: str
    clip: float | None
    total_steps: int


class SupervisedModule(LightningModule):
    """Supervised fine-tuning: manual optimisation, so that a step is exactly the spec's step.

    The loss of a step is the mean over all tokens under loss of all its micro-batches, as if they were
    one batch; Lightning's own accumulation would average the micro-batches' means instead.
    """

    def __init__(
        self, model: PreTrainedModel, settings: ModuleSettings, done: int, on_step: Callable[[StepReport], None]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.settings = settings
        self.done = done
        self.on_step = on_step
        self._norm = 0.0

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer over the trained weights."""
        return build_optimizer(self.model.parameters(), self.settings.optimizer)

    def transfer_batch_to_device(
        self,
        batch: list[MicroBatch],
        device: torch.device,
        dataloader_idx: int,
    ) -> list[MicroBatch]:
        """Move each micro-batch."""
        return [micro.to(device) for micro in batch]

    def training_step(self, batch: list[MicroBatch], batch_idx: int) -> None:
        """Do one optimizer step."""
        began = time.perf_counter()
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # noqa: S101 - configure_optimizers gives one
        lr = learning_rate(self.done, self.settings.total_steps, self.settings.optimizer, self.settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = lr
        learned = sum(int((micro.labels != IGNORED).sum()) for micro in batch)
        loss = 0.0
        for micro in batch:
            part = loss_sum(self.model, micro) / learned
            self.manual_backward(part)
            loss += float(part.detach())
        if not math.isfinite(loss):
            rows = sorted({row for micro in batch for row in micro.rows})
            raise TrainingError(
                f"the loss of step {self.done + 1} is {loss}: lower the learning rate (it was {lr:.3g}), or look "
                f"at the step's rows {', '.join(map(str, rows[:16]))}{'…' if len(rows) > 16 else ''}"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.done += 1
        tokens = sum(micro.real_tokens for micro in batch)
        self.on_step(StepReport(self.done, loss, lr, self._norm, tokens, time.perf_counter() - began))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: Lightning calls this once the gradients are unscaled, whatever the precision."""
        norm = gradient_norm(self.model.parameters())
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.settings.clip, norm)
        self._norm = float(norm)


def loss_sum(model: nn.Module, batch: MicroBatch) -> Tensor:
    """Return the summed loss of a micro-batch, a scalar in nats.

    The output layer sees only the positions under loss: the logits of the others, most of the memory
    with a large vocabulary, are never computed.
    """
    positions = batch.labels != IGNORED
    with output_positions(model, positions):
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
    return token_loss_sum(logits[0], batch.labels[positions])


@contextmanager
def output_positions(model: Any, positions: Tensor) -> Iterator[None]:
    """While open, the model's output layer is given only the chosen positions, as one sequence [1, m, h].

    A hook on that layer rather than the model's inner parts: what some architectures do to the logits
    afterwards (scaling, soft-capping) goes on being done by the model itself.

    Args:
        model: a Hugging Face causal language model.
        positions: bool [b, t], m of them True.
    """

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
        return (inputs[0][positions][None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()

"""The Lightning module: one Lightning batch is one device's share of an optimizer step, made of its micro-batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from transformers import PreTrainedModel

from llsflow.errors import TrainingError
from llsflow.schema.training import OptimizerConfig
from llsflow.training.examples import MicroBatch, StepShare
from llsflow.training.objectives import Objective
from llsflow.training.optimizers import build_optimizer, gradient_norm, learning_rate
from llsflow.training.sharding import gradients_stay, is_sharded, whole

TOLD_ROWS = 16
"""So many rows are named when the loss is not a number."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did, on all devices together."""

    step: int
    """Optimizer steps done, from 1."""
    loss: float
    """Mean over the step's tokens under loss, in nats; of preferences, over its pairs."""
    lr: float
    gradient_norm: float
    tokens: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    """What else the objective measures: means over the pairs."""


@dataclass(frozen=True)
class ModuleSettings:
    """What the module needs besides the model."""

    objective: Objective
    optimizer: OptimizerConfig
    schedule: str
    clip: float | None
    total_steps: int
    offload_activations: bool = False
    """Whether activations wait in the machine's memory for the backward pass."""


class StepModule(LightningModule):
    """Training by manual optimisation, so that a step is exactly the spec's step.

    The loss of a step is the mean over all tokens under loss (or pairs) of all its micro-batches on all devices, as
    if they were one batch; Lightning's own accumulation would average the micro-batches' means instead.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: ModuleSettings,
        done: int,
        on_step: Callable[[StepReport], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.settings = settings
        self.done = done
        self.on_step = on_step
        self.stopping = stopping
        self.stop = False
        """Whether any device was asked to stop: the same on all of them."""
        self._norm = 0.0
        self._under_way: tuple[list[MicroBatch], Tensor, float] = ([], torch.zeros(0), 0.0)

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer over the weights that learn."""
        return build_optimizer(self.model.parameters(), self.settings.optimizer)

    def transfer_batch_to_device(
        self,
        batch: StepShare,
        device: torch.device,
        dataloader_idx: int,
    ) -> StepShare:
        """Move each micro-batch."""
        return batch.to(device)

    def training_step(self, batch: StepShare, batch_idx: int) -> None:
        """Do one optimizer step."""
        began = time.perf_counter()
        mine = batch.micro_batches
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # noqa: S101 - configure_optimizers gives one
        lr = learning_rate(self.done, self.settings.total_steps, self.settings.optimizer, self.settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = lr
        counts = {"weight": sum(m.weight for m in mine), "tokens": sum(m.tokens for m in mine if m.weight)}
        weight = self.over_devices(counts)
        losses, sums = self._backward(mine, weight["weight"])
        told = self.over_devices({**sums, "loss": losses.sum()})
        loss = told.pop("loss") / weight["weight"]
        if not math.isfinite(loss):
            self._refuse(mine, losses, f"the loss of step {self.done + 1} is {loss}", lr)
        self._under_way = (mine, losses, lr)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.done += 1
        means = {name: value / weight["weight"] for name, value in told.items()}
        seconds = time.perf_counter() - began
        self.on_step(StepReport(self.done, loss, lr, self._norm, int(weight["tokens"]), seconds, means))
        self.stop = self.over_devices({"stop": float(self.stopping())})["stop"] > 0

    def _backward(self, batch: list[MicroBatch], weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the gradients, and return each micro-batch's summed loss and the sums of the other measures."""
        losses, sums = [], dict[str, Tensor]()
        # devices' gradients are averaged, the loss is a sum over all of them
        scale = self.trainer.world_size / weight
        for index, micro in enumerate(batch):
            idle = micro.weight == 0
            with self._saved_tensors(), self._apart(index < len(batch) - 1):
                part = self.settings.objective(self.model, micro)
                self.manual_backward(part.loss * (0.0 if idle else scale))
            losses.append(part.loss.detach().double() * (not idle))
            for name, value in part.metrics.items():
                sums[name] = sums.get(name, value.new_zeros(())) + value * (not idle)
        return torch.stack(losses), sums

    def _apart(self, more: bool) -> AbstractContextManager[None]:
        """Keep the gradients of all but the last micro-batch on their device, so that they are exchanged once."""
        wrapped = self.trainer.strategy.model
        if more and is_sharded(self.model):
            return gradients_stay(self.model)
        return wrapped.no_sync() if more and isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def _saved_tensors(self) -> AbstractContextManager[Any]:
        if self.settings.offload_activations:
            return torch.autograd.graph.save_on_cpu(pin_memory=True)
        return nullcontext()

    def over_devices(self, values: dict[str, Any]) -> dict[str, float]:
        """Return each value's sum over all devices."""
        stacked = torch.stack([torch.as_tensor(value, dtype=torch.float64).cpu() for value in values.values()])
        if self.trainer.world_size > 1:
            stacked = self.trainer.strategy.reduce(stacked.to(self._exchanged_on), reduce_op="sum").cpu()
        return dict(zip(values, stacked.tolist(), strict=True))

    @property
    def _exchanged_on(self) -> torch.device:
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def _from_devices(self, value: Any) -> list[Any]:
        """Return each device's value."""
        found = [value] * self.trainer.world_size
        if len(found) > 1:
            torch.distributed.all_gather_object(found, value)
        return found

    def _refuse(self, batch: Sequence[MicroBatch], losses: Tensor, what: str, lr: float) -> None:
        """Raise with the rows to look at, on whichever device they are: those of losses that are no number, or all."""
        broken = [micro for micro, one in zip(batch, losses, strict=True) if not math.isfinite(float(one))]
        mine = [[row for micro in micros for row in micro.rows] for micros in (broken, batch)]
        suspected, every = (sorted(set(chain(*found))) for found in zip(*self._from_devices(mine), strict=True))
        rows = suspected or every
        more = "…" if len(rows) > TOLD_ROWS else ""
        raise TrainingError(
            f"{what}: lower the learning rate (it was {lr:.3g}), or look "
            f"at the step's rows {', '.join(map(str, rows[:TOLD_ROWS]))}{more}"
        )

    def _scaled(self) -> bool:
        """Return whether the loss is scaled (fp16): then a step with a gradient that is too large is passed over."""
        return self.trainer.precision == "16-mixed"

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip: Lightning calls this once the gradients are unscaled, whatever the precision."""
        norm = whole(gradient_norm(self.model.parameters()))
        if not torch.isfinite(norm) and not self._scaled():  # such a step would ruin every weight
            batch, losses, lr = self._under_way
            self._refuse(batch, losses, f"the gradient of step {self.done + 1} is {float(norm)}", lr)
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.settings.clip, norm)
        self._norm = float(norm)

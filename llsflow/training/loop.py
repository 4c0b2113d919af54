"""What happens between optimizer steps: curves, validation, samples, checkpoints, and the stop that was asked for."""

from __future__ import annotations

import math
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from llsflow.training import checkpoints
from llsflow.training.batches import StepPlan
from llsflow.training.curves import Curves
from llsflow.training.inputs import FitHooks, FitInputs
from llsflow.training.module import StepModule, StepReport
from llsflow.training.samples import generate_samples
from llsflow.training.sharding import is_sharded, load_optimizer_state, optimizer_state, whole_weights
from llsflow.training.validation import validate, validation_batches
from llsflow.training.weights import write_weights

MIB = 2**20


class Loop(Callback):
    """Lightning's callback; on several devices only the first writes and tells."""

    def __init__(
        self,
        inputs: FitInputs,
        folder: Path,
        hooks: FitHooks,
        plan: StepPlan,
        state: dict[str, Any] | None,
        *,
        writes: bool = True,
    ) -> None:
        self.inputs, self.hooks, self.plan, self.state = inputs, hooks, plan, state
        self.recipe = inputs.recipe
        self.checkpoints = folder / "checkpoints"
        self.curves = Curves(folder / "curves.jsonl" if writes else None, upto=int(state["step"]) if state else 0)
        self.window: list[StepReport] = []
        self.window_began = time.perf_counter()
        self.tokens = 0
        self.seconds = 0.0
        self.stopped = False
        # kept in the checkpoints and not read of the curves, as all devices need it
        self.least_validation_loss = float(state["least_validation_loss"]) if state else math.inf
        self._began = 0.0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the optimizer and the random numbers to where the checkpoint left them."""
        assert isinstance(pl_module, StepModule)  # noqa: S101 - fit runs no other
        if self.state:
            load_optimizer_state(pl_module.model, trainer.optimizers[0], self.state["optimizer"])
            _set_random_state(self.state["random"], trainer.global_rank)
        elif self.inputs.validation is not None:
            self._validate(trainer, pl_module, 0)
        self.state = None
        if callable(self._on_sigterm) and threading.current_thread() is threading.main_thread():
            # Lightning put its own handler in place, which ends training in the middle: the caller's asks for a stop.
            signal.signal(signal.SIGTERM, self._on_sigterm)
        self._began = self.window_began = time.perf_counter()

    def on_step(self, report: StepReport) -> None:
        """Take a step's report from the module."""
        self.window.append(report)
        self.tokens += report.tokens
        self.hooks.on_step(report, len(self.plan.steps))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Decide what is due after this step."""
        step, last = pl_module.done, pl_module.done == len(self.plan.steps)
        if step % self.recipe.log_every_n_steps == 0 or last:
            self._log(step)
        best = False
        if self.inputs.validation is not None and (last or self._validation_due(step)):
            loss = self._validate(trainer, pl_module, step)
            best, self.least_validation_loss = loss < self.least_validation_loss, min(loss, self.least_validation_loss)
        self.stopped = not last and pl_module.stop
        if last or self.stopped or best or step % self.recipe.checkpoint_every_n_steps == 0:
            self._save(trainer, pl_module, step)
        if self.stopped:
            trainer.should_stop = True
        self.seconds = time.perf_counter() - self._began

    def _validation_due(self, step: int) -> bool:
        every = self.recipe.validate_every_n_steps
        return step % every == 0 if every else step in self.plan.epoch_ends

    def _log(self, step: int) -> None:
        now = time.perf_counter()
        window, self.window = self.window, []
        others = {name: [report.metrics[name] for report in window] for name in window[-1].metrics}
        metrics = {
            "train/loss": _mean([report.loss for report in window]),
            "train/lr": window[-1].lr,
            "train/grad_norm": window[-1].gradient_norm,
            "train/tokens_per_s": sum(report.tokens for report in window) / (now - self.window_began),
            "train/peak_memory_mib": _peak_memory() / MIB,
            **{f"train/{name}": _mean(values) for name, values in others.items()},
        }
        self.window_began = now
        self._point(metrics, step)

    def _point(self, metrics: dict[str, float], step: int) -> None:
        self.curves.add(metrics, step)
        self.hooks.log(metrics, step)

    def _validate(self, trainer: Trainer, module: StepModule, step: int) -> float:
        """Measure, tell and return the validation loss, which is the same on all devices."""
        examples, config = self.inputs.validation, self.recipe.training_config
        assert examples is not None  # noqa: S101 - asked by the caller
        assert config.data_config is not None  # noqa: S101 - cross_checks refused it
        began = time.perf_counter()
        most = max(0, config.max_validation_steps or 0)
        batches = validation_batches(examples.lengths, config.data_config.batch_size, most)
        means = validate(module, trainer, examples, batches)
        if self.recipe.kind == "sft":
            means["perplexity"] = math.exp(min(means["loss"], 700.0))
        self._point({f"val/{name}": value for name, value in means.items()}, step)
        if self.recipe.samples_per_validation and (trainer.is_global_zero or is_sharded(module.model)):
            with trainer.precision_plugin.forward_context():
                samples = generate_samples(
                    module.model,
                    self.inputs.tokenizer,
                    examples,
                    self.recipe.samples_per_validation,
                    self.recipe.sample_max_tokens,
                )
            self.hooks.on_samples(samples, step)
        self.window_began += time.perf_counter() - began
        return means["loss"]

    def _save(self, trainer: Trainer, module: StepModule, step: int) -> None:
        random = _random_states(trainer.world_size)
        weights = whole_weights(module.model)
        optimizer = optimizer_state(module.model, trainer.optimizers[0])
        if not trainer.is_global_zero:
            return
        epoch = self.plan.epoch_of(step - 1)
        checkpoint = checkpoints.save(
            self.checkpoints,
            step,
            lambda folder: write_weights(module.model, self.inputs, folder, weights),
            {
                "step": step,
                "optimizer": optimizer,
                "random": random,
                "least_validation_loss": self.least_validation_loss,
            },
            {"epoch": epoch, "metrics": self._metrics_at(step, epoch)},
        )
        checkpoints.prune(self.checkpoints, self.recipe.keep_checkpoints)
        self.hooks.on_checkpoint(checkpoint)

    def _metrics_at(self, step: int, epoch: int) -> dict[str, Any]:
        """Return what is known of the model as it is now: a validation of another step would be another model's."""
        losses = [report.loss for report in self.window]
        return {
            "epoch": epoch,
            "train_loss": _mean(losses) if losses else self.curves.last("train/loss"),
            "validation_loss": self.curves.at("val/loss", step),
            "perplexity": self.curves.at("val/perplexity", step),
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _peak_memory() -> float:
    """Return the most bytes that were in use so far: the GPU's where there is one, else the process's own."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used if sys.platform == "darwin" else used * 1024)


def _random_states(world: int) -> list[dict[str, Any]]:
    """Return the state of the random numbers of every device, in their order."""
    mine: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    if world == 1:
        return [mine]
    states: list[Any] = [None] * world
    torch.distributed.all_gather_object(states, mine)
    return states


def _set_random_state(states: list[dict[str, Any]], rank: int) -> None:
    torch.set_rng_state(states[rank]["cpu"])
    if torch.cuda.is_available() and "cuda" in states[rank]:
        torch.cuda.set_rng_state(states[rank]["cuda"])

"""One supervised training from its last checkpoint (or the start) to its last step."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from llsflow.data.tokens import TokenTable
from llsflow.errors import Stopped, TrainingError
from llsflow.models.load import load_model, save_folder
from llsflow.schema.training import Recipe, TrainerConfig, TrainingConfig
from llsflow.training import checkpoints
from llsflow.training.batches import BatchSettings, StepDataset, StepPlan, plan_steps
from llsflow.training.checkpoints import Checkpoint
from llsflow.training.curves import Curves
from llsflow.training.sft import ModuleSettings, StepReport, SupervisedModule
from llsflow.training.validation import validation_loss

PRECISIONS: dict[tuple[str, str], Any] = {
    ("fp32", "mixed"): "32-true",
    ("fp32", "true"): "32-true",
    ("bf16", "mixed"): "bf16-mixed",
    ("bf16", "true"): "bf16-true",
    ("fp16", "mixed"): "16-mixed",
    ("fp16", "true"): "16-true",
}
"""(training_config.dtype, trainer.precision) -> Lightning's precision."""


@dataclass(frozen=True)
class FitInputs:
    """What is trained, on what and how."""

    model: str
    """Folder (or hub id) of the weights to start from."""
    load: dict[str, Any]
    """Further arguments of load_model: revision, trust_remote_code."""
    tokenizer: Any
    train: TokenTable
    validation: TokenTable | None
    recipe: Recipe
    trainer: TrainerConfig
    seed: int


@dataclass(frozen=True)
class FitHooks:
    """Who is told, and who may stop it."""

    on_step: Callable[[StepReport, int], None] = lambda report, total: None
    """Called with every step's report and the number of steps."""
    log: Callable[[dict[str, float], int], None] = lambda metrics, step: None
    """Called with each point of the curves."""
    on_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None
    """Called with each checkpoint once it is whole; a run that goes on tells those that are there already again."""
    stopping: Callable[[], bool] = lambda: False
    """Asked at each step's end."""


@dataclass
class FitResult:
    """What a training came to."""

    checkpoint: Path
    """The last checkpoint: a Hugging Face folder."""
    steps: int
    epochs: int
    tokens: int
    """Real tokens seen by this process."""
    seconds: float
    """Time of this process's steps."""
    resumed_from: int
    """Optimizer step that this process went on from; 0: from the start."""
    train_loss: float
    validation_loss: float | None
    parameters: int
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def step_plan(lengths: Any, recipe: Recipe, seed: int) -> StepPlan:
    """Return the training's optimizer steps."""
    config = recipe.training_config
    data = config.data_config
    assert data is not None  # noqa: S101 - cross_checks refused it
    settings = BatchSettings(
        batch_size=data.batch_size,
        accumulation=config.gradient_accumulation_steps,
        shuffle=data.shuffle,
        group_by_length=recipe.group_by_length,
        max_steps_per_epoch=config.max_steps_per_epoch,
        seed=seed,
    )
    return plan_steps(lengths, config.n_epochs, settings)


def fit(inputs: FitInputs, folder: Path, hooks: FitHooks) -> FitResult:
    """Train, going on from the newest whole checkpoint under `folder/checkpoints`.

    Raises:
        Stopped: `hooks.stopping` said so; a checkpoint of the last step was kept.
        TrainingError: the machine has no such accelerator or precision, or the loss is not a number.
        StorageError: a checkpoint cannot be written.
    """
    _refuse_impossible(inputs)
    if inputs.trainer.num_threads:
        torch.set_num_threads(inputs.trainer.num_threads)
    torch.manual_seed(inputs.seed)
    plan = step_plan(inputs.train.lengths, inputs.recipe, inputs.seed)
    last, state = _go_on_from(folder / "checkpoints", hooks)
    dtype = _held_dtype(inputs)
    model = load_model(str(last.folder), dtype=dtype) if last else load_model(inputs.model, dtype=dtype, **inputs.load)
    model.train()
    loop = _Loop(inputs, folder, hooks, plan, state)
    config = inputs.recipe.training_config
    assert config.optimizer_config is not None  # noqa: S101 - cross_checks refused it
    settings = ModuleSettings(
        optimizer=config.optimizer_config,
        schedule=inputs.recipe.lr_schedule,
        clip=inputs.recipe.gradient_clip_norm,
        total_steps=len(plan.steps),
    )
    module = SupervisedModule(model, settings, last.step if last else 0, loop.on_step)
    if module.done < len(plan.steps):
        _run(module, loop, inputs, plan)
    if loop.stopped:
        raise Stopped(f"stopped after optimizer step {module.done} of {len(plan.steps)}; a checkpoint is kept")
    newest = checkpoints.find(folder / "checkpoints")[-1]
    return FitResult(
        checkpoint=newest.folder,
        steps=len(plan.steps),
        epochs=config.n_epochs,
        tokens=loop.tokens,
        seconds=loop.seconds,
        resumed_from=last.step if last else 0,
        train_loss=loop.curves.last("train/loss"),
        validation_loss=loop.curves.last_or_none("val/loss"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        curves=loop.curves.points,
    )


def _go_on_from(folder: Path, hooks: FitHooks) -> tuple[Checkpoint | None, dict[str, Any] | None]:
    """Return the newest checkpoint that training can go on from, and its state."""
    found = checkpoints.find(folder)
    last = next((checkpoint for checkpoint in reversed(found) if checkpoint.resumable), None)
    if last is None:
        return None, None
    for checkpoint in found:
        if checkpoint.step <= last.step:
            hooks.on_checkpoint(checkpoint)
    return last, checkpoints.load_state(last)


def _refuse_impossible(inputs: FitInputs) -> None:
    """Refuse what this machine cannot do, where Lightning would quietly do something else."""
    wanted, dtype = inputs.trainer.accelerator, inputs.recipe.training_config.dtype
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(wanted, True):
        raise TrainingError(f"trainer.accelerator={wanted}: torch finds none here; set it to auto or cpu")
    if dtype == "fp16" and (wanted == "cpu" or not any(here.values())):
        raise TrainingError("dtype fp16 needs a GPU: set recipe.training_config.dtype to bf16 or fp32")


def _held_dtype(inputs: FitInputs) -> str:
    """Weights are held in fp32 under mixed precision, else in the computation's dtype."""
    dtype = inputs.recipe.training_config.dtype or "fp32"
    return dtype if inputs.trainer.precision == "true" else "fp32"


def _run(module: SupervisedModule, loop: _Loop, inputs: FitInputs, plan: StepPlan) -> None:
    pad = inputs.tokenizer.pad_token_id
    dataset = StepDataset(inputs.train, plan, pad if pad is not None else 0, start=module.done)
    loader = DataLoader(dataset, batch_size=None, shuffle=False, collate_fn=lambda item: item)
    with _quiet():
        trainer = Trainer(
            accelerator=inputs.trainer.accelerator,
            devices=inputs.trainer.devices,
            precision=PRECISIONS[inputs.recipe.training_config.dtype or "fp32", inputs.trainer.precision],
            max_epochs=1,
            logger=False,
            callbacks=[loop],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, loader)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on workers and devices is for its own users, not for ours."""
    chatter = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in chatter]
    for logger in chatter:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 calls a name of torch's that torch 2.13 means to rename
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(chatter, levels, strict=True):
            logger.setLevel(level)


class _Loop(Callback):
    """What happens between optimizer steps: curves, validation, checkpoints, stopping."""

    def __init__(
        self, inputs: FitInputs, folder: Path, hooks: FitHooks, plan: StepPlan, state: dict[str, Any] | None
    ) -> None:
        self.inputs, self.hooks, self.plan, self.state = inputs, hooks, plan, state
        self.recipe = inputs.recipe
        self.checkpoints = folder / "checkpoints"
        self.curves = Curves(folder / "curves.jsonl", upto=int(state["step"]) if state else 0)
        self.window: list[StepReport] = []
        self.window_began = time.perf_counter()
        self.tokens = 0
        self.seconds = 0.0
        self.stopped = False
        self._began = 0.0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the optimizer and the random numbers to where the checkpoint left them."""
        if self.state:
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            torch.set_rng_state(self.state["rng"])
            if torch.cuda.is_available() and "cuda_rng" in self.state:
                torch.cuda.set_rng_state_all(self.state["cuda_rng"])
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
        if self.inputs.validation is not None and (last or self._validation_due(step)):
            self._validate(trainer, pl_module, step)
        self.stopped = not last and self.hooks.stopping()
        if last or self.stopped or step % self.recipe.checkpoint_every_n_steps == 0:
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
        metrics = {
            "train/loss": sum(report.loss for report in window) / len(window),
            "train/lr": window[-1].lr,
            "train/grad_norm": window[-1].gradient_norm,
            "train/tokens_per_s": sum(report.tokens for report in window) / (now - self.window_began),
        }
        self.window_began = now
        self._point(metrics, step)

    def _point(self, metrics: dict[str, float], step: int) -> None:
        self.curves.add(metrics, step)
        self.hooks.log(metrics, step)

    def _validate(self, trainer: Trainer, module: SupervisedModule, step: int) -> None:
        assert self.inputs.validation is not None  # noqa: S101 - asked by the caller
        began = time.perf_counter()
        loss = validation_loss(module, trainer, self.inputs.validation, _validation_batches(self.inputs))
        self._point({"val/loss": loss, "val/perplexity": math.exp(min(loss, 700.0))}, step)
        self.window_began += time.perf_counter() - began

    def _save(self, trainer: Trainer, module: SupervisedModule, step: int) -> None:
        state = {"step": step, "optimizer": trainer.optimizers[0].state_dict(), "rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda_rng"] = torch.cuda.get_rng_state_all()
        epoch = self.plan.epoch_of(step - 1)
        dtype = _held_dtype(self.inputs)
        checkpoint = checkpoints.save(
            self.checkpoints,
            step,
            lambda folder: save_folder(module.model, self.inputs.tokenizer, folder, dtype),
            state,
            {"epoch": epoch, "metrics": self._metrics_at(step, epoch)},
        )
        checkpoints.prune(self.checkpoints, self.recipe.keep_checkpoints)
        self.hooks.on_checkpoint(checkpoint)

    def _metrics_at(self, step: int, epoch: int) -> dict[str, Any]:
        """Return what is known of the model as it is now: a validation of another step would be another model's."""
        losses = [report.loss for report in self.window]
        return {
            "epoch": epoch,
            "train_loss": sum(losses) / len(losses) if losses else self.curves.last("train/loss"),
            "validation_loss": self.curves.at("val/loss", step),
            "perplexity": self.curves.at("val/perplexity", step),
        }


def _validation_batches(inputs: FitInputs) -> tuple[int, int, int]:
    """Return rows a batch, most batches (0: all) and the padding token."""
    config: TrainingConfig = inputs.recipe.training_config
    assert config.data_config is not None  # noqa: S101 - cross_checks refused it
    most = config.max_validation_steps or 0
    pad = inputs.tokenizer.pad_token_id
    return config.data_config.batch_size, max(0, most), pad if pad is not None else 0

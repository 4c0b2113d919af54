"""One training from its last checkpoint (or the start) to its last step."""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from llsflow.errors import Stopped, TrainingError
from llsflow.models.adapters import parameters_of
from llsflow.models.output import is_plain
from llsflow.training import checkpoints
from llsflow.training.batches import StepPlan
from llsflow.training.checkpoints import Checkpoint
from llsflow.training.devices import Device, on_cuda, share_cores, strategy, together
from llsflow.training.examples import StepDataset, as_it_is, follow_the_trainer
from llsflow.training.inputs import FitHooks, FitInputs, FitResult, step_plan
from llsflow.training.loop import Loop
from llsflow.training.module import ModuleSettings, StepModule
from llsflow.training.objectives import objective_of
from llsflow.training.weights import load_weights

PRECISIONS: dict[tuple[str, str], Any] = {
    ("fp32", "mixed"): "32-true",
    ("fp32", "true"): "32-true",
    ("bf16", "mixed"): "bf16-mixed",
    ("bf16", "true"): "bf16-true",
    ("fp16", "mixed"): "16-mixed",
    ("fp16", "true"): "16-true",
}
"""(training_config.dtype, trainer.precision) -> Lightning's precision."""

logger = logging.getLogger("llsflow")


def fit(inputs: FitInputs, folder: Path, hooks: FitHooks) -> FitResult:
    """Train, going on from the newest whole checkpoint under `folder/checkpoints`.

    Raises:
        Stopped: `hooks.stopping` said so; a checkpoint of the last step was kept.
        TrainingError: the machine has no such accelerator or precision, or the loss is not a number.
        StorageError: a checkpoint cannot be written.
    """
    _refuse_impossible(inputs)
    with together(inputs, folder) as device:
        module, loop, begun = train_as(device, inputs, folder, hooks)
    found = checkpoints.find(folder / "checkpoints")
    parameters, learning = parameters_of(module.model)
    return FitResult(
        checkpoint=found[-1].folder,
        best=checkpoints.best(found),
        steps=module.done,
        epochs=inputs.recipe.training_config.n_epochs,
        tokens=loop.tokens,
        seconds=loop.seconds,
        resumed_from=begun,
        train_loss=loop.curves.last("train/loss"),
        validation_loss=loop.curves.last_or_none("val/loss"),
        parameters=parameters,
        learning=learning,
        curves=loop.curves.points,
    )


def train_as(device: Device, inputs: FitInputs, folder: Path, hooks: FitHooks) -> tuple[StepModule, Loop, int]:
    """Train as one of the devices that train together, and return the step that was begun at, too.

    The first device writes and tells, the others compute.
    """
    share_cores(inputs)
    torch.manual_seed(inputs.seed)
    plan = step_plan(inputs.train.lengths, inputs.recipe, inputs.seed, inputs.trainer.devices)
    last, state = _go_on_from(folder / "checkpoints", hooks)
    model = load_weights(inputs, last)
    if device.rank:  # the first device drew the new adapters' numbers; dropout is every device's own
        torch.manual_seed(inputs.seed + device.rank)
    loop = Loop(inputs, folder, hooks, plan, state, writes=device.rank == 0)
    settings = _settings(inputs, plan, plain=is_plain(model))
    module = StepModule(model, settings, last.step if last else 0, loop.on_step, hooks.stopping)
    if module.done < len(plan.steps):
        _run(module, loop, inputs, plan, device)
    if loop.stopped:
        raise Stopped(f"stopped after optimizer step {module.done} of {len(plan.steps)}; a checkpoint is kept")
    return module, loop, last.step if last else 0


def _settings(inputs: FitInputs, plan: StepPlan, *, plain: bool) -> ModuleSettings:
    config = inputs.recipe.training_config
    assert config.optimizer_config is not None  # noqa: S101 - cross_checks refused it
    return ModuleSettings(
        objective=objective_of(inputs.recipe, plain=plain),
        optimizer=config.optimizer_config,
        schedule=inputs.recipe.lr_schedule,
        clip=inputs.recipe.gradient_clip_norm,
        total_steps=len(plan.steps),
        offload_activations=bool(config.efficiency_config and config.efficiency_config.enable_activation_offloading),
    )


def _go_on_from(folder: Path, hooks: FitHooks) -> tuple[Checkpoint | None, dict[str, Any] | None]:
    """Return the newest checkpoint that training can go on from, and its state; a damaged one is passed over."""
    found = checkpoints.find(folder)
    for last in reversed([checkpoint for checkpoint in found if checkpoint.resumable]):
        if not checkpoints.verified(last):
            logger.warning("checkpoint %s is damaged: going on from the one before", last.folder.name)
            continue
        for checkpoint in found:
            if checkpoint.step <= last.step:
                hooks.on_checkpoint(checkpoint)
        return last, checkpoints.load_state(last)
    return None, None


def _refuse_impossible(inputs: FitInputs) -> None:
    """Refuse what this machine cannot do, where Lightning would quietly do something else."""
    wanted, dtype = inputs.trainer.accelerator, inputs.recipe.training_config.dtype
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(wanted, True):
        raise TrainingError(f"trainer.accelerator={wanted}: torch finds none here; set it to auto or cpu")
    count = torch.cuda.device_count()
    if on_cuda(inputs) and inputs.trainer.devices > count:
        raise TrainingError(f"trainer.devices={inputs.trainer.devices}: this machine has {count}; set it to {count}")
    if inputs.trainer.devices > 1 and wanted == "mps":
        raise TrainingError("trainer.devices: Apple's GPU is one device; set it to 1")
    efficiency = inputs.recipe.training_config.efficiency_config
    if efficiency and efficiency.enable_activation_offloading and not on_cuda(inputs):
        raise TrainingError(
            "enable_activation_offloading moves what a GPU holds to the machine's memory, and there is no CUDA GPU "
            "here: set it to false; enable_activation_checkpointing saves memory on every device"
        )
    if efficiency and efficiency.fsdp_cpu_offload and not on_cuda(inputs):
        raise TrainingError(
            "fsdp_cpu_offload holds what a GPU would hold in the machine's memory, and there is no CUDA GPU here: set "
            "it to false"
        )
    if dtype == "fp16" and (wanted == "cpu" or not any(here.values())):
        raise TrainingError("dtype fp16 needs a GPU: set recipe.training_config.dtype to bf16 or fp32")


def _run(module: StepModule, loop: Loop, inputs: FitInputs, plan: StepPlan, device: Device) -> None:
    dataset = StepDataset(inputs.train, plan, start=module.done, rank=device.rank, world=device.world)
    # a generator of its own: what the loader draws is nothing that a resumed run could draw again
    loader = DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        collate_fn=as_it_is,
        num_workers=inputs.trainer.num_workers,
        multiprocessing_context=_worker_context() if inputs.trainer.num_workers else None,
        worker_init_fn=follow_the_trainer,
        persistent_workers=inputs.trainer.num_workers > 0,
        generator=torch.Generator(),
    )
    with _quiet():
        trainer = Trainer(
            accelerator=inputs.trainer.accelerator,
            devices=device.world,
            strategy=strategy(device, inputs),
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
        finally:
            _end_workers(loader)


def _worker_context() -> Any:
    """Return how the loader's processes start: from a clean process, as Python does by itself from 3.14 on.

    A fork of this one, with Prefect's and MLflow's threads in the middle of their work, fails at its end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([StepDataset.__module__])
    return context


def _end_workers(loader: DataLoader[Any]) -> None:
    """End the loader's processes now, not whenever its iterator is collected, and whatever they say to that."""
    iterator: Any = loader._iterator  # what persistent_workers keeps; torch has no public way to end them
    if iterator is not None:
        with suppress(RuntimeError):  # a worker that was stopped in the middle of a batch ends with an error
            iterator._shutdown_workers()


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

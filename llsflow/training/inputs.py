"""What a training is given, who is told of it, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llsflow.schema.training import Recipe, TrainerConfig
from llsflow.training.batches import BatchSettings, StepPlan, plan_steps
from llsflow.training.checkpoints import Checkpoint
from llsflow.training.examples import ExampleTable
from llsflow.training.module import StepReport


@dataclass(frozen=True)
class FitInputs:
    """What is trained, on what and how."""

    model: str
    """Folder (or hub id) of the weights to start from."""
    load: dict[str, Any]
    """Further arguments of load_model: revision, trust_remote_code."""
    tokenizer: Any
    train: ExampleTable
    validation: ExampleTable | None
    recipe: Recipe
    trainer: TrainerConfig
    seed: int


@dataclass(frozen=True)
class Sample:
    """What the model being trained answers to a prompt of the validation's."""

    row: int
    """The row's number in its file."""
    prompt: str
    expected: str
    generated: str


@dataclass(frozen=True)
class FitHooks:
    """Who is told, and who may stop it."""

    on_step: Callable[[StepReport, int], None] = lambda report, total: None
    """Called with every step's report and the number of steps."""
    log: Callable[[dict[str, float], int], None] = lambda metrics, step: None
    """Called with each point of the curves."""
    on_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None
    """Called with each checkpoint once it is whole; a run that goes on tells those that are there already again."""
    on_samples: Callable[[list[Sample], int], None] = lambda samples, step: None
    """Called at each validation with what the model answers to its first examples."""
    stopping: Callable[[], bool] = lambda: False
    """Asked at each step's end."""


@dataclass
class FitResult:
    """What a training came to."""

    checkpoint: Path
    """The last checkpoint: a Hugging Face folder."""
    best: Checkpoint | None
    """The one with the least validation loss; None: nothing was validated."""
    steps: int
    epochs: int
    tokens: int
    """Tokens read since this process began, on all devices."""
    seconds: float
    """Time of this process's steps."""
    resumed_from: int
    """Optimizer step that this process went on from; 0: from the start."""
    train_loss: float
    validation_loss: float | None
    parameters: int
    learning: int
    """How many of the parameters learn."""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def step_plan(lengths: Any, recipe: Recipe, seed: int, devices: int = 1) -> StepPlan:
    """Return the training's optimizer steps; one takes gradient_accumulation_steps micro-batches on each device.

    Args:
        lengths: tokens of each example.
        recipe: of the training.
        seed: of the order.
        devices: how many train together.
    """
    config = recipe.training_config
    data = config.data_config
    assert data is not None  # noqa: S101 - cross_checks refused it
    settings = BatchSettings(
        batch_size=data.batch_size,
        micro_batches=config.gradient_accumulation_steps * devices,
        shuffle=data.shuffle,
        group_by_length=recipe.group_by_length,
        max_steps_per_epoch=config.max_steps_per_epoch,
        seed=seed,
        packed_tokens=recipe.packed_length if data.packed else None,
    )
    return plan_steps(lengths, config.n_epochs, settings)

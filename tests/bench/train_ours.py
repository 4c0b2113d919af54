"""Our own trainings, by llsflow.training as the steps of a plan use it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train_common import BETA, LEARNING_RATE, MAX_TOKENS, Kind, Measured, Settings, load_rows

NEVER = 10**6
SAVED_EVERY = 50
"""Optimizer steps between checkpoints, where they are measured."""
LORA_STEPS = 200
LORA = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "apply_lora_to_output": False,
    "rank": 8,
    "alpha": 16,
}


@dataclass
class _Moments:
    """When what happened, in seconds of the clock."""

    clock: Callable[[], float]
    steps: list[float] = field(default_factory=list)
    """Each optimizer step's end."""
    first_took: float = 0.0
    """The first step's start is told to nobody: its own report has its wall time, never less than its cpu time."""
    checkpoints: list[float] = field(default_factory=list)
    """Each checkpoint's end."""
    saving: float = 0.0
    """Seconds between a step's end and its checkpoint's, of all checkpoints together."""

    def on_step(self, report: Any, total: int) -> None:
        """Take a step."""
        self.steps.append(self.clock())
        self.first_took = self.first_took or report.seconds

    def on_checkpoint(self, checkpoint: Any) -> None:
        """Take a checkpoint."""
        self.checkpoints.append(self.clock())
        self.saving += self.checkpoints[-1] - self.steps[-1]

    def seconds(self, until: float) -> float:
        """Return the time from the first step's start."""
        return until - self.steps[0] + self.first_took


def llsflow(settings: Settings) -> Measured:
    """Train every weight, rows of like length together: as the bare loop, which sorts its rows."""
    inputs, tokens = _inputs(settings, {"group_by_length": True})
    moments = _fit(settings, inputs)
    return Measured(tokens, moments.seconds(moments.steps[-1]), {"steps": len(moments.steps)})


def large(settings: Settings) -> Measured:
    """Train every weight in the order that both sides have by default: batches of mixed lengths."""
    inputs, tokens = _inputs(settings, {})
    moments = _fit(settings, inputs)
    return Measured(tokens, moments.seconds(moments.steps[-1]), {"steps": len(moments.steps)})


def packed(settings: Settings) -> Measured:
    """Train every weight on sequences filled with whole rows, one in a step."""
    inputs, tokens = _inputs(settings, {"packed_length": MAX_TOKENS}, {"packed": True, "batch_size": 1})
    moments = _fit(settings, inputs)
    return Measured(tokens, moments.seconds(moments.steps[-1]), {"steps": len(moments.steps)})


def dpo(settings: Settings) -> Measured:
    """Optimise preferences; the reference's log-probabilities, computed before the first step, are in the time."""
    from dataclasses import replace

    import numpy as np

    from llsflow.training.reference import load_reference, reference_log_probabilities

    alignment = {"beta": BETA, "loss_type": "sigmoid"}
    inputs, tokens = _inputs(settings, {"kind": "dpo", "alignment_config": alignment, "group_by_length": True})
    pairs = inputs.train
    model = load_reference(inputs)
    began = settings.clock()
    known = reference_log_probabilities(model, inputs, pairs, np.arange(len(pairs)), lambda done: None)
    before = settings.clock() - began
    del model
    moments = _fit(settings, replace(inputs, train=replace(pairs, reference=known)))
    seconds = before + moments.seconds(moments.steps[-1])
    return Measured(tokens, seconds, {"steps": len(moments.steps), "reference_seconds": round(before, 2)})


def lora(settings: Settings) -> Measured:
    """Train adapters; nothing is saved in the time."""
    inputs, tokens = _inputs(settings, {"group_by_length": True, "algorithm_config": LORA})
    moments = _fit(settings, inputs)
    return Measured(tokens, moments.seconds(moments.steps[-1]), {"steps": len(moments.steps)})


def lora_saving(settings: Settings) -> Measured:
    """Train adapters with a checkpoint every so many steps; the time ends with the last step's checkpoint."""
    often = {"checkpoint_every_n_steps": SAVED_EVERY}
    inputs, tokens = _inputs(settings, {"group_by_length": True, "algorithm_config": LORA, **often})
    moments = _fit(settings, inputs)
    seconds = moments.seconds(moments.checkpoints[-1])
    more = {"checkpoints": len(moments.checkpoints), "saving_share": round(moments.saving / seconds, 5)}
    return Measured(tokens, seconds, {"steps": len(moments.steps), **more})


def _inputs(settings: Settings, changes: dict[str, Any], data_changes: dict[str, Any] | None = None) -> tuple[Any, int]:
    """Return the training's inputs, and how many tokens it reads.

    Args:
        settings: of the measurement; where its steps need more rows than there are, these are read again.
        changes: what its recipe has besides a plain supervised one's.
        data_changes: the same, of its data_config.
    """
    from llsflow.data.tokens import TokenSettings, tokenize
    from llsflow.models.load import load_tokenizer
    from llsflow.schema.training import DatasetFormat, TrainerConfig
    from llsflow.training.examples import ExampleTable
    from llsflow.training.inputs import FitInputs

    paired = changes.get("kind") == "dpo"
    name = "dpo" if paired else "sft"
    rows = load_rows(settings, name)
    epochs = max(1, math.ceil(settings.batch * settings.steps / len(rows)))
    rows = rows[: settings.batch * math.ceil(settings.steps / epochs)]
    tokenizer = load_tokenizer(str(settings.model))
    masked = TokenSettings(
        DatasetFormat.DIALOG, train_on_input=False, max_length=MAX_TOKENS, overlong="refuse", pairs=paired
    )
    table, facts = tokenize(list(enumerate(rows, 1)), f"{name}.jsonl", tokenizer, masked)
    inputs = FitInputs(
        model=str(settings.model),
        load={},
        tokenizer=tokenizer,
        train=ExampleTable(table, paired),
        validation=None,
        recipe=_recipe(settings, epochs, changes, data_changes or {}),
        trainer=TrainerConfig(accelerator="cpu", num_threads=settings.threads),
        seed=0,
    )
    return inputs, facts.tokens * epochs


def _recipe(settings: Settings, epochs: int, changes: dict[str, Any], data_changes: dict[str, Any]) -> Any:
    from llsflow.schema.training import Recipe

    data = {"dataset_id": "fixture", "batch_size": settings.batch, "shuffle": True, "data_format": "dialog"}
    recipe = Recipe.model_validate(
        {
            "kind": "sft",
            "lr_schedule": "constant",
            "checkpoint_every_n_steps": NEVER,
            "training_config": {
                "n_epochs": epochs,
                "max_steps_per_epoch": 0,
                "gradient_accumulation_steps": 1,
                "dtype": "fp32",
                "data_config": {**data, **data_changes},
                "optimizer_config": {
                    "optimizer_type": "adamw",
                    "lr": LEARNING_RATE,
                    "weight_decay": 0.01,
                    "num_warmup_steps": 0,
                },
            },
            **changes,
        }
    )
    assert not (mistakes := list(recipe.checks())), mistakes
    return recipe


def _fit(settings: Settings, inputs: Any) -> _Moments:
    from llsflow.training.fit import fit
    from llsflow.training.inputs import FitHooks

    moments = _Moments(settings.clock)
    with tempfile.TemporaryDirectory() as folder:
        fit(inputs, Path(folder), FitHooks(on_step=moments.on_step, on_checkpoint=moments.on_checkpoint))
    return moments


KINDS = {
    "llsflow": Kind(llsflow),
    "llsflow-packed": Kind(packed),
    "llsflow-dpo": Kind(dpo),
    "llsflow-large": Kind(large, model="large", steps=10),
    "llsflow-lora": Kind(lora, steps=LORA_STEPS),
    "llsflow-lora-saving": Kind(lora_saving, steps=LORA_STEPS),
}

"""The checkpoints of a training as its watchers see them, while it goes on and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llsflow.training.checkpoints import Checkpoint, find

FOLDER = "checkpoints"
"""In the folder of a training step."""


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known of a checkpoint without opening it."""

    step: int
    """Optimizer steps done."""
    epoch: int
    """From 0."""
    path: str
    """A Hugging Face folder, from the training step's folder."""
    metrics: dict[str, Any]
    """epoch, train_loss, validation_loss, perplexity; null: not measured at this step."""
    created_at: datetime


def facts_of(checkpoint: Checkpoint) -> CheckpointFacts:
    """Return the facts of a checkpoint on disk."""
    return CheckpointFacts(
        checkpoint.step,
        checkpoint.epoch,
        f"{FOLDER}/{checkpoint.folder.name}",
        checkpoint.metrics,
        checkpoint.created_at,
    )


def list_checkpoints(folder: Path) -> list[CheckpointFacts]:
    """Return the whole checkpoints of a training step's folder, the oldest first."""
    return [facts_of(checkpoint) for checkpoint in find(folder / FOLDER)]


def exported_checkpoint(of: Mapping[str, Any]) -> str:
    """Return in words which checkpoint was exported."""
    named = "the last" if of["which"] == "last" else "the best by validation"
    loss = "" if of["validation_loss"] is None else f", validation loss {of['validation_loss']:.4g}"
    return f"{named}: step {of['step']:,} of {of['steps']:,}{loss}"

"""Checkpoints: Hugging Face folders with the optimizer beside them, whole or not there at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llsflow import home

STATE = "training_state.pt"
FACTS = "checkpoint.json"
"""Written last: a folder without it is not a checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    folder: Path
    step: int
    """Optimizer steps done."""
    epoch: int
    metrics: dict[str, float]


def save(folder: Path, step: int, write: Any, state: dict[str, Any], facts: dict[str, Any]) -> Checkpoint:
    """Write `<folder>/step-<n>`: aside, synced, then renamed.

    Args:
        folder: where checkpoints live.
        step: optimizer steps done.
        write: called with the folder to write the model and tokenizer into.
        state: what else the training needs to go on: tensors and plain values only.
        facts: small JSON: epoch, metrics.
    """
    final = folder / f"step-{step:08d}"
    aside = folder / f".step-{step:08d}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with home.storage_errors(folder):  # inside: what was written aside tells that the disk is full
            aside.mkdir(parents=True)
            write(aside)
            torch.save(state, aside / STATE)
            sizes = {path.name: path.stat().st_size for path in aside.iterdir() if path.is_file()}
            home.write_json(aside / FACTS, {"step": step, **facts, "files": sizes})
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return _read(final, {"step": step, **facts})


def _read(folder: Path, facts: dict[str, Any]) -> Checkpoint:
    return Checkpoint(folder, facts["step"], facts.get("epoch", 0), facts.get("metrics", {}))


def find(folder: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of a folder, the oldest first; a damaged one is passed over."""
    found = []
    for path in sorted(folder.glob("step-*")):
        facts = home.read_json(path / FACTS)
        if facts is None:
            continue
        sizes = facts.get("files", {})
        if all((path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items()):
            found.append(_read(path, facts))
    return found


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a killed process left aside."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    for checkpoint in find(folder)[:-keep]:
        shutil.rmtree(checkpoint.folder, ignore_errors=True)


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `save` was given as `state`; only tensors and plain values are read, never code."""
    state: dict[str, Any] = torch.load(checkpoint.folder / STATE, weights_only=True, map_location="cpu")
    return state

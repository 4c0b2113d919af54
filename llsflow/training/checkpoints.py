"""Checkpoints: Hugging Face folders with the optimizer beside them, whole or not there at all.

Importing this module is light: it is also how a finished training's checkpoints are listed.
"""

from __future__ import annotations

import math
import os
import shutil
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llsflow import home

STATE = "training_state.pt"
FACTS = "checkpoint.json"
"""Written last: a folder without it is not a checkpoint."""

BEST = "best"
"""A link to the checkpoint with the least validation loss."""

RESUMABLE = 2
"""So many of the newest checkpoints keep the optimizer: one to go on from, and one more should that be damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk."""

    folder: Path
    step: int
    """Optimizer steps done."""
    epoch: int
    """Of its last step, from 0."""
    metrics: dict[str, Any]
    """epoch, train_loss, validation_loss, perplexity; null: not measured at this step."""
    created_at: datetime
    files: tuple[str, ...]

    @property
    def resumable(self) -> bool:
        """Whether it holds what training needs to go on, not the weights alone."""
        return STATE in self.files


def save(folder: Path, step: int, write: Any, state: dict[str, Any], facts: dict[str, Any]) -> Checkpoint:
    """Write `<folder>/step-<n>`: aside, synced, then renamed.

    Args:
        folder: where checkpoints live.
        step: optimizer steps done.
        write: called with the folder to write the model and tokenizer into.
        state: what else the training needs to go on: tensors and plain values only.
        facts: small JSON: epoch, metrics.
    """
    import torch

    facts = {"step": step, "created_at": datetime.now(UTC).isoformat(), **facts}
    final = folder / f"step-{step:08d}"
    aside = folder / f".step-{step:08d}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with home.storage_errors(folder):  # inside: what was written aside tells that the disk is full
            aside.mkdir(parents=True)
            write(aside)
            torch.save(state, aside / STATE)
            written = [path for path in aside.iterdir() if path.is_file()]
            facts |= {"files": {path.name: path.stat().st_size for path in written}}
            facts |= {"checksums": {path.name: _checksum(path) for path in written}}
            home.write_json(aside / FACTS, facts)
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return _read(final, facts)


def _read(folder: Path, facts: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        folder,
        facts["step"],
        facts.get("epoch", 0),
        facts.get("metrics", {}),
        datetime.fromisoformat(facts["created_at"]),
        tuple(sorted(facts["files"])),
    )


def find(folder: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of a folder, the oldest first; a damaged one is passed over."""
    found = []
    for path in sorted(folder.glob("step-*")):
        facts = home.read_json(path / FACTS)
        if facts is not None and "created_at" in facts and _whole(path, facts["files"]):
            found.append(_read(path, facts))
    return found


def _whole(path: Path, sizes: dict[str, int]) -> bool:
    return all((path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items())


def verified(checkpoint: Checkpoint) -> bool:
    """Return whether every file of a checkpoint holds what was written."""
    checksums = (home.read_json(checkpoint.folder / FACTS) or {}).get("checksums", {})
    return all(
        _checksum(checkpoint.folder / name) == sum_ for name, sum_ in checksums.items() if name in checkpoint.files
    )


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file: against damage, not against an attacker, and faster than any disk."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            found = zlib.crc32(block, found)
    return found


def best(found: list[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint with the least validation loss, the oldest of equals; None: none was validated."""
    losses = [(one.metrics.get("validation_loss"), one) for one in found]
    judged = [(loss, one) for loss, one in losses if loss is not None and math.isfinite(loss)]
    return min(judged, key=lambda pair: float(pair[0]))[1] if judged else None


def prune(folder: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints (None: remove none) and the best by validation, which `best` names.

    All but the newest two lose their optimizer.

    What a killed process left aside goes too.
    """
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    found = find(folder)
    marked = best(found)
    gone = [checkpoint for checkpoint in (found[:-keep] if keep else []) if checkpoint != marked]
    for checkpoint in gone:
        shutil.rmtree(checkpoint.folder, ignore_errors=True)
    for checkpoint in found[:-RESUMABLE]:
        if checkpoint not in gone:
            _drop_state(checkpoint.folder)
    if marked is not None:
        _mark(folder, marked)


def _mark(folder: Path, checkpoint: Checkpoint) -> None:
    """Let the link `best` name the checkpoint."""
    aside = folder / f".{BEST}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    aside.symlink_to(checkpoint.folder.name)
    aside.replace(folder / BEST)


def _drop_state(folder: Path) -> None:
    """Leave the weights alone; at every moment the folder is a whole checkpoint, of the one kind or the other."""
    facts = home.read_json(folder / FACTS)
    if facts is not None and facts["files"].pop(STATE, None) is not None:
        home.write_json(folder / FACTS, facts)
    (folder / STATE).unlink(missing_ok=True)


def load_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `save` was given as `state`; only tensors and plain values are read, never code."""
    import torch

    state: dict[str, Any] = torch.load(checkpoint.folder / STATE, weights_only=True, map_location="cpu")
    return state

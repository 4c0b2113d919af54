"""Which rows make up each optimizer step, as a pure function of the seed: resuming is starting at a later step.

Letters: n rows, b rows in a micro-batch, t tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from llsflow.data.tokens import TokenTable
from llsflow.losses.supervised import next_token_labels

Rows = NDArray[np.int64]
"""Indices of rows in the table."""

WINDOW = 64
"""Batches whose rows are sorted by length together: enough to save nearly all padding, few enough to mix."""


@dataclass(frozen=True)
class BatchSettings:
    """What decides the order of the rows."""

    batch_size: int
    accumulation: int
    shuffle: bool
    group_by_length: bool
    max_steps_per_epoch: int
    """0 or less: the whole epoch."""
    seed: int


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of every optimizer step of a training, and where its epochs end."""

    steps: list[list[Rows]]
    epoch_ends: list[int]
    """Number of optimizer steps done when each epoch is over."""

    def epoch_of(self, step: int) -> int:
        """Return the epoch (from 0) that optimizer step `step` (from 0) belongs to."""
        return int(np.searchsorted(self.epoch_ends, step, side="right"))


def plan_steps(lengths: NDArray[np.int64], n_epochs: int, settings: BatchSettings) -> StepPlan:
    """Return every optimizer step of the training; rows are never dropped, so the last ones may be smaller."""
    steps: list[list[Rows]] = []
    ends: list[int] = []
    for epoch in range(n_epochs):
        batches = list(_epoch_batches(lengths, epoch, settings))
        if epoch == 0 and settings.shuffle and settings.group_by_length:
            # the widest batch first: memory that does not suffice shows at once, and no later batch needs more
            widest = max(range(len(batches)), key=lambda index: int(lengths[batches[index]].max()))
            batches.insert(0, batches.pop(widest))
        groups = [batches[i : i + settings.accumulation] for i in range(0, len(batches), settings.accumulation)]
        if settings.max_steps_per_epoch > 0:
            groups = groups[: settings.max_steps_per_epoch]
        steps += groups
        ends.append(len(steps))
    return StepPlan(steps, ends)


def _epoch_batches(lengths: NDArray[np.int64], epoch: int, settings: BatchSettings) -> Iterator[Rows]:
    size = settings.batch_size
    if not settings.shuffle:
        order = np.arange(len(lengths))
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    generator = np.random.default_rng([settings.seed, epoch])
    order = generator.permutation(len(lengths))
    if not settings.group_by_length:
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    window = size * WINDOW
    for begin in range(0, len(order), window):
        rows = order[begin : begin + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches = [rows[i : i + size] for i in range(0, len(rows), size)]
        yield from (batches[i] for i in generator.permutation(len(batches)))


@dataclass  # not frozen: Lightning copies it field by field under bf16-true
class MicroBatch:
    """Rows padded on the right to the longest."""

    input_ids: Tensor
    """int64 [b, t]."""
    labels: Tensor
    """int64 [b, t]: what each position predicts, IGNORED where it carries no loss."""
    rows: list[int]
    """The rows' numbers in their file, to name them when the loss is not a number."""
    real_tokens: int

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatch:
        """Return the batch on another device (Lightning calls this)."""
        ids = self.input_ids.to(device, non_blocking=non_blocking)
        labels = self.labels.to(device, non_blocking=non_blocking)
        return MicroBatch(ids, labels, self.rows, self.real_tokens)


def collate(table: TokenTable, rows: Rows, pad: int) -> MicroBatch:
    """Return rows as one padded micro-batch.

    No attention mask is needed: padding stands on the right of a causal model, so no real token sees it.
    """
    lengths = table.lengths[rows]
    ids = torch.full((len(rows), int(lengths.max())), pad, dtype=torch.int64)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        begin = int(table.offsets[row])
        ids[index, :length] = torch.from_numpy(np.array(table.input_ids[begin : begin + length], dtype=np.int64))
        mask[index, :length] = torch.from_numpy(np.array(table.loss_mask[begin : begin + length]))
    numbers = [int(number) for number in table.numbers[rows]]
    return MicroBatch(ids, next_token_labels(ids, mask), numbers, int(lengths.sum()))


class StepDataset(Dataset[list[MicroBatch]]):
    """The micro-batches of the optimizer steps from `start` on; one item is one optimizer step."""

    def __init__(self, table: TokenTable, plan: StepPlan, pad: int, start: int = 0) -> None:
        self.table, self.plan, self.pad, self.start = table, plan, pad, start

    def __len__(self) -> int:
        return len(self.plan.steps) - self.start

    def __getitem__(self, index: int) -> list[MicroBatch]:
        return [collate(self.table, rows, self.pad) for rows in self.plan.steps[self.start + index]]

"""Examples as tensors: a row with its tokens under loss, or two answers to one prompt.

Letters: t tokens of a micro-batch, n rows of it, p pairs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from llsflow.data.tokens import TokenTable
from llsflow.losses.supervised import IGNORED, next_token_labels
from llsflow.models.segments import Segments
from llsflow.training.batches import Examples, StepPlan


@dataclass(frozen=True)
class MicroBatch:
    """Rows one after another; of pairs the chosen answer, then the rejected one, which share their prompt."""

    input_ids: Tensor
    """int64 [t]."""
    labels: Tensor
    """int64 [t]: what each position predicts, IGNORED where it carries no loss."""
    segments: Segments
    rows: list[int]
    """The rows' numbers in their file, to name them when the loss is not a number."""
    weight: int
    """What the summed loss is a sum over: tokens under loss, or pairs."""
    reference: Tensor | None = None
    """fp32 [p, 2]: log-probabilities of both answers under the reference."""

    @property
    def tokens(self) -> int:
        """How many tokens the rows have, a shared prompt counted for each."""
        return sum(self.segments.lengths)

    def to(self, device: torch.device, non_blocking: bool = False) -> MicroBatch:
        """Return the batch on another device (Lightning calls this)."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            segments=self.segments.to(device),
            reference=None if self.reference is None else self.reference.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True)
class ExampleTable:
    """Examples over a table of tokenised rows."""

    table: TokenTable
    paired: bool = False
    """Row 2i is the chosen answer of example i with its prompt, row 2i + 1 the rejected one."""
    reference: NDArray[np.float32] | None = None
    """[examples, 2]: log-probabilities under the reference; not a number where an example is never trained on."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example."""
        rows = self.table.lengths
        return rows.reshape(-1, 2).sum(axis=1) if self.paired else rows

    def collate(self, examples: Examples) -> MicroBatch:
        """Return examples as one micro-batch."""
        rows = np.stack([2 * examples, 2 * examples + 1], axis=1).ravel() if self.paired else examples
        ids, labels = zip(*(self._row(int(row)) for row in rows), strict=True)
        shared = _shared(ids, labels) if self.paired else [0] * len(rows)
        label = torch.cat([part[common:] for part, common in zip(labels, shared, strict=True)])
        reference = None
        if self.paired and self.reference is not None:
            reference = torch.from_numpy(np.array(self.reference[examples], dtype=np.float32))
        return MicroBatch(
            input_ids=torch.cat([part[common:] for part, common in zip(ids, shared, strict=True)]),
            labels=label,
            segments=Segments.of([len(row) for row in ids], shared),
            rows=[int(number) for number in self.table.numbers[rows[:: 2 if self.paired else 1]]],
            weight=len(examples) if self.paired else int((label != IGNORED).sum()),
            reference=reference,
        )

    def _row(self, row: int) -> tuple[Tensor, Tensor]:
        begin, end = int(self.table.offsets[row]), int(self.table.offsets[row + 1])
        ids = torch.from_numpy(np.array(self.table.input_ids[begin:end], dtype=np.int64))
        mask = torch.from_numpy(np.array(self.table.loss_mask[begin:end]))
        return ids, next_token_labels(ids[None], mask[None])[0]


def _shared(ids: Sequence[Tensor], labels: Sequence[Tensor]) -> list[int]:
    """Return how many of each row's first tokens are the row's before it: none of a chosen answer's, the prompt's else.

    The prompt's last token is left out: what it predicts is each answer's own.
    """
    found = []
    for row in range(0, len(ids), 2):
        length = min(len(ids[row]), len(ids[row + 1]))
        pair = slice(row, row + 2)
        alike = ids[row][:length] == ids[row + 1][:length]
        for predicted in labels[pair]:
            alike &= predicted[:length] == IGNORED
        found += [0, int(alike.long().cumprod(0).sum())]
    return found


class StepShare:
    """One device's micro-batches of an optimizer step.

    No dataclass and no list: under bf16-true Lightning would round every number that it finds in those.
    """

    def __init__(self, micro_batches: list[MicroBatch]) -> None:
        self.micro_batches = micro_batches

    def to(self, device: torch.device) -> StepShare:
        """Return the share on another device."""
        return StepShare([micro.to(device) for micro in self.micro_batches])


class StepDataset(Dataset[StepShare]):
    """Optimizer steps from `start` on; one item is one device's share of a step."""

    def __init__(
        self, examples: ExampleTable, plan: StepPlan, start: int = 0, *, rank: int = 0, world: int = 1
    ) -> None:
        self.examples, self.plan, self.start, self.rank, self.world = examples, plan, start, rank, world

    def __len__(self) -> int:
        return len(self.plan.steps) - self.start

    def __getitem__(self, index: int) -> StepShare:
        step = self.plan.steps[self.start + index]
        mine = [self.examples.collate(batch) for batch in step[self.rank :: self.world]]
        # a device that is left over at an epoch's end computes along without weight: the others wait for its gradient
        return StepShare(mine or [replace(self.examples.collate(step[0][:1]), weight=0)])


def as_it_is(share: Any) -> Any:
    """Return what the data set made, a StepShare: torch's own collation would try to convert it."""
    return share


def follow_the_trainer(worker: int) -> None:  # noqa: ARG001 - the signature that torch calls
    """Have a loader's process leave Ctrl-C to the trainer, which finishes its step, and end whenever that ends.

    torch looks at who started the process, which is the fork server: that one lives as long as the process does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()


def _end_with_the_trainer() -> None:
    trainer = multiprocessing.parent_process()
    assert trainer is not None  # noqa: S101 - a loader's process has one
    trainer.join()
    os._exit(1)

"""Which rows make up each optimizer step, as a pure function of the seed: resuming is starting at a later step.

What is batched is an example: a row, or a pair of answers to one prompt.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Examples = NDArray[np.int64]
"""Indices of examples."""

WINDOW = 64
"""Batches whose examples are sorted by length together: enough to save nearly all padding, few enough to mix."""

PACKED_TOGETHER = 4096
"""Examples that are packed together: enough to fill the sequences, few enough to mix."""


@dataclass(frozen=True)
class BatchSettings:
    """What decides the order of the examples."""

    batch_size: int
    """Examples in a micro-batch; packed: sequences."""
    micro_batches: int
    """Micro-batches in an optimizer step, on all devices together."""
    shuffle: bool
    group_by_length: bool
    max_steps_per_epoch: int
    """0 or less: the whole epoch."""
    seed: int
    packed_tokens: int | None = None
    """Packed: most tokens in a sequence."""


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of every optimizer step of a training, and where its epochs end."""

    steps: list[list[Examples]]
    epoch_ends: list[int]
    """Number of optimizer steps done when each epoch is over."""

    def epoch_of(self, step: int) -> int:
        """Return the epoch (from 0) that optimizer step `step` (from 0) belongs to."""
        return int(np.searchsorted(self.epoch_ends, step, side="right"))

    def examples(self) -> Examples:
        """Return every example that is trained on at all, in order."""
        return np.unique(np.concatenate([batch for step in self.steps for batch in step]))


def plan_steps(lengths: NDArray[np.int64], n_epochs: int, settings: BatchSettings) -> StepPlan:
    """Return every optimizer step of the training; examples are never dropped, so the last ones may be smaller."""
    steps: list[list[Examples]] = []
    ends: list[int] = []
    for epoch in range(n_epochs):
        batches = list(_epoch_batches(lengths, epoch, settings))
        if epoch == 0 and settings.shuffle and settings.group_by_length:
            # the widest batch first: memory that does not suffice shows at once, and no later batch needs more
            widest = max(range(len(batches)), key=lambda index: int(lengths[batches[index]].max()))
            batches.insert(0, batches.pop(widest))
        size = settings.micro_batches
        groups = [batches[i : i + size] for i in range(0, len(batches), size)]
        if settings.max_steps_per_epoch > 0:
            groups = groups[: settings.max_steps_per_epoch]
        steps += groups
        ends.append(len(steps))
    return StepPlan(steps, ends)


def _epoch_batches(lengths: NDArray[np.int64], epoch: int, settings: BatchSettings) -> Iterator[Examples]:
    size = settings.batch_size
    generator = np.random.default_rng([settings.seed, epoch])
    order = generator.permutation(len(lengths)) if settings.shuffle else np.arange(len(lengths))
    if settings.packed_tokens is not None:
        sequences = list(_packed(lengths, order, settings.packed_tokens, generator if settings.shuffle else None))
        yield from (np.concatenate(sequences[i : i + size]) for i in range(0, len(sequences), size))
        return
    if not (settings.shuffle and settings.group_by_length):
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    window = size * WINDOW
    for begin in range(0, len(order), window):
        examples = order[begin : begin + window]
        examples = examples[np.argsort(lengths[examples], kind="stable")]
        batches = [examples[i : i + size] for i in range(0, len(examples), size)]
        yield from (batches[i] for i in generator.permutation(len(batches)))


def _packed(
    lengths: NDArray[np.int64], order: Examples, most: int, generator: np.random.Generator | None
) -> Iterator[Examples]:
    """Yield the examples of each sequence of at most `most` tokens; without a generator the order is kept."""
    if generator is None:
        begin = tokens = 0
        for end, length in enumerate(lengths[order]):
            if tokens + length > most and end > begin:
                yield order[begin:end]
                begin, tokens = end, 0
            tokens += int(length)
        yield order[begin:]
        return
    for begin in range(0, len(order), PACKED_TOGETHER):
        sequences = _best_fit(lengths, order[begin : begin + PACKED_TOGETHER], most)
        yield from (np.array(sequences[i]) for i in generator.permutation(len(sequences)))


def _best_fit(lengths: NDArray[np.int64], examples: Examples, most: int) -> list[list[int]]:
    """Put each example, in the order given, where the least room is left after it.

    Not the longest first, as packing for space alone would: a sequence of the longest alone would be unlike the rest,
    and where length tells what a row is about the model learns worse.
    """
    sequences: list[list[int]] = []
    room: list[tuple[int, int]] = []  # tokens left, sequence; sorted
    for example in examples:
        length = int(lengths[example])
        place = bisect_left(room, (length, -1))
        left, index = room.pop(place) if place < len(room) else (most, len(sequences))
        if index == len(sequences):
            sequences.append([])
        sequences[index].append(int(example))
        insort(room, (left - length, index))
    return sequences

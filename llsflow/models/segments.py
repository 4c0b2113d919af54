"""Where rows that stand one after another in one sequence end, and the buckets that attention pads them in.

Two rows that begin alike, as the answers to one prompt do, may share what they have in common: it stands in the
sequence once, and is computed once.

The loader's processes import this: nothing here needs transformers.

Letters: n rows, t tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BUCKETS = 4
"""Most calls of the attention kernel for one layer."""


@dataclass(frozen=True)
class Bucket:
    """Rows of like length, padded to the longest of them for attention."""

    rows: int
    longest: int
    spread: Tensor
    """int64 [rows · longest]: which token of the sequence stands there; padding repeats the row's first."""
    back: Tensor
    """int64 [o]: where each of the o tokens that the bucket's rows own stands in the padded rows."""
    fill: Tensor
    """int64 [rows · longest]: which of the o tokens stands there; o where none of them does."""
    copies: Tensor
    """int64 [c]: where in the padded rows the c tokens stand that a row shares with the one before it."""
    copied: Tensor
    """int64 [c]: where those stand in the sequence."""

    def to(self, device: torch.device) -> Bucket:
        """Return the bucket on another device."""
        found = (self.spread, self.back, self.fill, self.copies, self.copied)
        return Bucket(self.rows, self.longest, *(index.to(device, non_blocking=True) for index in found))


@dataclass(frozen=True)
class Segments:
    """Where the rows of one sequence end."""

    lengths: tuple[int, ...]
    """Tokens of each row."""
    shared: tuple[int, ...]
    """How many of each row's first tokens are those of the row before it."""
    positions: Tensor
    """int64 [1, t]: each token's place in its own row."""
    buckets: tuple[Bucket, ...]
    order: Tensor
    """int64 [t]: brings the buckets' tokens, one bucket after another, into the sequence's order."""
    inverse: Tensor
    """int64 [t]: brings the sequence's tokens into the buckets' order."""

    @classmethod
    def of(cls, lengths: Sequence[int], shared: Sequence[int] | None = None) -> Segments:
        """Return the borders of rows, in this order.

        Args:
            lengths: tokens of each row.
            shared: how many of a row's first tokens are those of the row before it, which itself shares none; the
                sequence has them once.
        """
        sizes = np.asarray(lengths, dtype=np.int64)
        common = np.zeros_like(sizes) if shared is None else np.asarray(shared, dtype=np.int64)
        own = sizes - common
        starts = np.concatenate([[0], np.cumsum(own)[:-1]])
        # where a row would start if what it shares stood before what it owns, and where what it shares stands
        virtual, before = starts - common, np.concatenate([[0], starts[:-1]])
        made, tokens = [], []
        for rows in _groups(sizes):
            longest = int(sizes[rows].max())
            place = np.arange(longest)[None, :]
            inside, mine = place < sizes[rows][:, None], place >= common[rows][:, None]
            token = np.where(mine, virtual[rows][:, None], before[rows][:, None]) + place
            token = np.where(inside, token, token[:, :1])
            owned, copies = inside & mine, inside & ~mine
            fill = np.where(owned.ravel(), np.cumsum(owned.ravel()) - 1, int(owned.sum()))
            indices = (token.ravel(), np.flatnonzero(owned), fill, np.flatnonzero(copies), token[copies])
            made.append(Bucket(len(rows), longest, *(_tensor(index) for index in indices)))
            tokens.append(token[owned])
        positions = np.arange(int(own.sum())) - np.repeat(virtual, own)
        inverse = np.concatenate(tokens)
        order = np.argsort(inverse, kind="stable")
        told = [tuple(int(number) for number in found) for found in (sizes, common)]
        where = (_tensor(index) for index in (order, inverse))
        return cls(told[0], told[1], _tensor(positions)[None], tuple(made), *where)

    @property
    def own(self) -> list[int]:
        """How many tokens of the sequence are each row's own."""
        return [length - shared for length, shared in zip(self.lengths, self.shared, strict=True)]

    def rows(self, sequence: Tensor) -> list[Tensor]:
        """Return the whole rows of something that has an entry for each token of the sequence, [t, …]."""
        parts = torch.split(sequence, self.own)
        found: list[Tensor] = []
        for part, shared in zip(parts, self.shared, strict=True):
            found.append(torch.cat([found[-1][:shared], part]) if shared else part)
        return found

    def to(self, device: torch.device) -> Segments:
        """Return the borders on another device."""
        buckets = tuple(bucket.to(device) for bucket in self.buckets)
        positions, order, inverse = (index.to(device) for index in (self.positions, self.order, self.inverse))
        return Segments(self.lengths, self.shared, positions, buckets, order, inverse)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def _groups(sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows in at most BUCKETS groups, cut so that the fewest scores of padding are computed."""
    order = np.argsort(sizes, kind="stable")
    areas = sizes[order] ** 2
    groups = [order]
    while len(groups) < BUCKETS:
        best = max(range(len(groups)), key=lambda index: _saved(sizes[groups[index]])[0])
        saved, cut = _saved(sizes[groups[best]])
        if saved < 0.25 * int(areas.sum()):
            break
        groups[best : best + 1] = [groups[best][:cut], groups[best][cut:]]
    return groups


def _saved(sizes: NDArray[np.int64]) -> tuple[int, int]:
    """Return the attention scores that the best cut of sorted rows saves, and where it is."""
    if len(sizes) < 2:
        return 0, 0
    shorter = np.arange(1, len(sizes))
    saved = shorter * (sizes[-1] ** 2 - sizes[:-1] ** 2)
    best = int(np.argmax(saved))
    return int(saved[best]), best + 1

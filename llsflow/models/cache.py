"""What a model keeps of texts that it has read: keys and values of each row's own tokens, and of a start they share.

b rows, t tokens of a row, p tokens of the start that all rows share, g heads of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens of room that a full cache grows by; each growth copies the cache once."""
LEAST = 32
"""Tokens that a shared start has at least: fewer are read sooner than they are found and kept."""

States = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, [1, g, p, size]."""


@dataclass(frozen=True)
class Prefix:
    """The start that several texts share, as the model has read it."""

    ids: tuple[int, ...]
    states: States

    def starts(self, text: Sequence[int]) -> bool:
        """Return whether the text starts with it and goes on."""
        return len(text) > len(self.ids) and tuple(text[: len(self.ids)]) == self.ids

    def cut(self, tokens: int) -> Prefix:
        """Return its first so many tokens."""
        states = tuple((keys[:, :, :tokens], values[:, :, :tokens]) for keys, values in self.states)
        return Prefix(self.ids[:tokens], states)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    one, other = tuple(first), tuple(second)
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[:middle] == other[:middle]:
            least = middle
        else:
            most = middle - 1
    return least


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values written in place, with room to spare: transformers' own layer copies them all at each step."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.room: tuple[Tensor, Tensor] | None = None
        self.places: Tensor | None = None
        """Where the tokens of a first reading go that has the rows one after another: bool [b, t]."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [b, g, new, size] and return all of [b, g, t, size].

        With `places` the first are [1, g, all rows' tokens, size], and are returned as they came.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.places is not None:
            keys, values = (_in_rows(states, self.places) for states in (key_states, value_states))
            self._hold(self.places.shape[1], keys, values)
            self.places = None
            return key_states, value_states
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.room is None or self.room[0].shape[-2] < end:
            old = (self.keys, self.values) if start else (None, None)
            self.room = (_roomy(key_states, old[0], end), _roomy(value_states, old[1], end))
        keys, values = self.room
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def put_before(self, keys: Tensor, values: Tensor, rows: int) -> None:
        """Put [1, g, p, size] before what each of so many rows has."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        first = [states.expand(rows, -1, -1, -1) for states in (keys, values)]
        if self.keys is not None and self.values is not None and self.room is not None:
            first = [torch.cat(pair, dim=-2) for pair in zip(first, (self.keys, self.values), strict=True)]
        self._hold(first[0].shape[-2], *first)

    def narrow(self, rows: Tensor, start: int) -> None:
        """Keep these rows, and of each what follows the first `start` tokens."""
        if self.room is None:
            return
        end = self.get_seq_length() - start
        self.room = (
            self.room[0][:, :, start:].index_select(0, rows),
            self.room[1][:, :, start:].index_select(0, rows),
        )
        self.keys, self.values = self.room[0][:, :, :end], self.room[1][:, :, :end]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`."""
        self.narrow(beam_idx, 0)

    def join(self, other: GrowingLayer) -> None:
        """Take in the rows of another layer; the shorter of the two is filled up on the left."""
        end = max(self.get_seq_length(), other.get_seq_length())
        pairs: Any = ((self.keys, other.keys), (self.values, other.values))
        self._hold(end, *(_stacked(mine, theirs, end) for mine, theirs in pairs))

    def _hold(self, end: int, keys: Tensor, values: Tensor) -> None:
        self.room = (_roomy(keys, keys, end), _roomy(values, values, end))
        self.keys, self.values = self.room[0][:, :, :end], self.room[1][:, :, :end]


def _roomy(states: Tensor, old: Tensor | None, end: int) -> Tensor:
    shape = list(states.shape)
    shape[-2] = end + ROOM
    room = states.new_empty(shape)
    if old is not None:
        room[:, :, : old.shape[-2]] = old
    return room


def _in_rows(states: Tensor, places: Tensor) -> Tensor:
    """Return [1, g, all rows' tokens, size] as [b, g, t, size]; zeros fill up, as no mask hides a NaN."""
    rows = states.new_zeros(*places.shape, states.shape[1], states.shape[3])
    rows[places] = states[0].transpose(0, 1)
    return rows.transpose(1, 2)


def _stacked(first: Tensor, second: Tensor, end: int) -> Tensor:
    """Return both one above the other, each at the right of `end` columns; zeros fill up, as no mask hides a NaN."""
    stacked = first.new_zeros((len(first) + len(second), first.shape[1], end, first.shape[3]))
    stacked[: len(first), :, end - first.shape[-2] :] = first
    stacked[len(first) :, :, end - second.shape[-2] :] = second
    return stacked

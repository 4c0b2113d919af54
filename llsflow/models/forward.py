"""The model as the decoding loop runs it: the next logits of a batch that grows by a token, and rows that come and go.

b rows, t tokens so far, p tokens of a prefix that all rows share, v vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens of room that a full cache grows by; each growth copies the cache once."""


class Forward(Protocol):
    """The model as the loop needs it."""

    grows: bool
    """Whether rows can join."""

    def logits(self) -> Tensor:
        """Return the logits of the next token, [b, v]."""

    def append(self, tokens: Tensor) -> None:
        """Go on with `tokens` [b]."""

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows of the batch only."""

    def join(self, other: Any) -> None:
        """Take in the rows of another of the same kind, behind the own ones; both have a token appended."""

    def read(self, row: int, text: Sequence[int]) -> Prefix | None:
        """Return what the model has read of a row, whose text is known; None: its state cannot be shared."""


@dataclass(frozen=True)
class Prefix:
    """The start that several texts share, as the model has read it."""

    ids: tuple[int, ...]
    states: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of each layer, [1, heads, p, size]."""

    def starts(self, text: Sequence[int]) -> bool:
        """Return whether the text starts with it and goes on."""
        return len(text) > len(self.ids) and tuple(text[: len(self.ids)]) == self.ids

    def cut(self, tokens: int) -> Prefix:
        """Return its first so many tokens."""
        states = tuple((keys[:, :, :tokens], values[:, :, :tokens]) for keys, values in self.states)
        return Prefix(self.ids[:tokens], states)


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values written in place, with room to spare: transformers' own layer copies them all at each step."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [b, heads, new, size] and return all of [b, heads, t, size]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
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

    def begin(self, keys: Tensor, values: Tensor, rows: int) -> None:
        """Begin with [1, heads, p, size] for each of so many rows."""
        self.lazy_initialization(keys, values)
        self._hold(keys.shape[-2], *(states.expand(rows, -1, -1, -1) for states in (keys, values)))

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


def _stacked(first: Tensor, second: Tensor, end: int) -> Tensor:
    """Return both one above the other, each at the right of `end` columns; zeros fill up, as no mask hides a NaN."""
    stacked = first.new_zeros((len(first) + len(second), first.shape[1], end, first.shape[3]))
    stacked[: len(first), :, end - first.shape[-2] :] = first
    stacked[len(first) :, :, end - second.shape[-2] :] = second
    return stacked


class CachedForward:
    """Left-padded texts, then one token a step: what was read stays in the model's cache."""

    def __init__(
        self, model: PreTrainedModel, texts: Sequence[Sequence[int]], pad: int, prefix: Prefix | None = None
    ) -> None:
        self.model = model
        takes_part = "logits_to_keep" in _parameters(model)
        self.extra: dict[str, Any] = {"logits_to_keep": 1} if takes_part else {}
        # Any: transformers types its caches for beam search, where the rows of a batch never change in number.
        self.cache: Any = DynamicCache(config=model.config)
        self.grows = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        self.layers: list[Any] = [
            GrowingLayer() if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]
        self.cache.layers = self.layers
        read = 0
        if prefix and self.grows and all(prefix.starts(text) for text in texts):
            read = len(prefix.ids)
            for layer, (keys, values) in zip(self.layers, prefix.states, strict=True):
                layer.begin(keys, values, len(texts))
        rest = [text[read:] for text in texts]
        width = max(len(text) for text in rest)
        ids = [[pad] * (width - len(text)) + list(text) for text in rest]
        mask = [[1] * read + [0] * (width - len(text)) + [1] * len(text) for text in rest]
        self.ids = torch.tensor(ids, device=model.device)  # [b, t - p], later [b, 1]
        self.mask = torch.tensor(mask, device=model.device)  # [b, t]
        self.positions = (self.mask.cumsum(dim=-1) - 1).clamp(min=0)[:, read:]  # as ids
        self.padded = any(len(text) < width for text in rest)

    def logits(self) -> Tensor:
        """Return the logits of the next token, [b, v]."""
        logits: Tensor = self.model(
            input_ids=self.ids,
            attention_mask=self.mask if self.padded else None,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            **self.extra,
        ).logits
        return logits[:, -1]

    def append(self, tokens: Tensor) -> None:
        """Go on with `tokens` [b]."""
        self.ids = tokens.unsqueeze(-1)
        self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        self.positions = self.positions[:, -1:] + 1

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows of the batch only; columns that only padded the others go with them."""
        index = torch.tensor(rows, device=self.ids.device)
        self.ids, self.mask, self.positions = self.ids[index], self.mask[index], self.positions[index]
        if not self.grows:
            self.cache.reorder_cache(index)
            return
        empty = int(self.mask.any(dim=0).int().argmax()) if self.padded else 0
        self.mask = self.mask[:, empty:]
        self.padded = self.padded and not bool(self.mask.all())
        for layer in self.layers:
            layer.narrow(index, empty)

    def join(self, other: CachedForward) -> None:
        """Take in the rows of another, behind the own ones; both have a token appended."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs)
        width = max(self.mask.shape[1], other.mask.shape[1])
        masks = [torch.nn.functional.pad(one.mask, (width - one.mask.shape[1], 0)) for one in (self, other)]
        self.mask = torch.cat(masks)
        self.ids = torch.cat([self.ids, other.ids])
        self.positions = torch.cat([self.positions, other.positions])
        self.padded = not bool(self.mask.all())

    def read(self, row: int, text: Sequence[int]) -> Prefix | None:
        """Return what the model has read of a row, whose text is known; None: its state cannot be shared."""
        if not self.grows:
            return None
        tokens = self.layers[0].get_seq_length()
        there = self.mask[row, :tokens].bool()
        states = [(layer.keys[row : row + 1, :, there], layer.values[row : row + 1, :, there]) for layer in self.layers]
        return Prefix(tuple(text[: int(there.sum())]), tuple(states))


class RereadForward:
    """Right-padded texts, read from the start at each step: slow, but right for every causal model."""

    grows = True

    def __init__(self, model: PreTrainedModel, texts: Sequence[Sequence[int]], pad: int) -> None:
        self.model = model
        self.texts = [list(text) for text in texts]
        self.pad = pad

    def logits(self) -> Tensor:
        """Return the logits of the next token, [b, v]."""
        lengths = [len(text) for text in self.texts]
        ids = [text + [self.pad] * (max(lengths) - len(text)) for text in self.texts]
        logits: Tensor = self.model(input_ids=torch.tensor(ids, device=self.model.device), use_cache=False).logits
        return logits[torch.arange(len(ids)), torch.tensor(lengths) - 1]

    def append(self, tokens: Tensor) -> None:
        """Go on with `tokens` [b]."""
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows of the batch only."""
        self.texts = [self.texts[row] for row in rows]

    def join(self, other: RereadForward) -> None:
        """Take in the rows of another, behind the own ones."""
        self.texts += other.texts

    def read(self, row: int, text: Sequence[int]) -> Prefix | None:
        """Return None: nothing is kept."""
        return None


def make_forward(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], pad: int, prefix: Prefix | None = None
) -> Forward:
    """Return the fastest way to run this model that is right.

    Left padding needs positions that the caller can set; a row can leave a cache of keys and values, while other
    kinds of state (Mamba, RWKV) differ from model to model.
    """
    cached = {"past_key_values", "position_ids", "attention_mask"} <= _parameters(model)
    return CachedForward(model, texts, pad, prefix) if cached else RereadForward(model, texts, pad)


@torch.inference_mode()
def read_prefix(model: PreTrainedModel, ids: Sequence[int]) -> Prefix | None:
    """Return the start of texts as the model reads it; None: this model's state cannot be shared."""
    forward = make_forward(model, [ids], 0)
    if isinstance(forward, RereadForward):
        return None
    forward.logits()
    return forward.read(0, ids)


def common_start(texts: Sequence[list[int]]) -> list[int]:
    """Return the longest start of all texts that leaves each at least one token."""
    if not texts:
        return []
    first, last = min(texts), max(texts)  # of sorted texts these two differ first
    most = min(min(len(text) for text in texts) - 1, len(first), len(last))
    same = next((place for place in range(most) if first[place] != last[place]), most)
    return first[: max(same, 0)]


def _parameters(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters)

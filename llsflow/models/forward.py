"""The model as the decoding loop runs it: the next logits of a batch that grows by a token, and rows that come and go.

b rows, t tokens of a row so far, without those of a start that all rows share; v vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from llsflow.models.attention import close
from llsflow.models.cache import LEAST, GrowingLayer, Prefix, shared
from llsflow.models.generation_attention import NAME
from llsflow.models.segments import Segments

logger = logging.getLogger("llsflow")

_PACKS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""What was found out about each model in memory."""


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


class CachedForward:
    """Texts, then one token a step: what was read stays in the model's cache.

    Where the model can, the texts are read one after another, without padding, and a start that they share stands in
    memory once; else they are padded on the left, and each has the start.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        texts: Sequence[Sequence[int]],
        pad: int,
        prefix: Prefix | None = None,
        *,
        packed: bool | None = None,
    ) -> None:
        self.model = model
        self.takes_part = "logits_to_keep" in _parameters(model)
        # Any: transformers types its caches for beam search, where the rows of a batch never change in number.
        self.cache: Any = DynamicCache(config=model.config)
        self.grows = all(type(layer) is DynamicLayer for layer in self.cache.layers)
        self.layers: list[Any] = [
            GrowingLayer() if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]
        self.cache.layers = self.layers
        self.packed = self.grows and (packs(model) if packed is None else packed)
        used = prefix if prefix and self.grows and all(prefix.starts(text) for text in texts) else None
        read = len(used.ids) if used else 0
        self.shared = used
        """The start that every row has, and that the cache's rows do not hold."""
        rest = [list(text[read:]) for text in texts]
        width = max(len(text) for text in rest)
        ids = [[pad] * (width - len(text)) + text for text in rest]
        mask = [[0] * (width - len(text)) + [1] * len(text) for text in rest]
        self.ids = torch.tensor(ids, device=model.device)  # [b, t], later [b, 1]
        self.mask = torch.tensor(mask, device=model.device)  # [b, t]
        self.positions = (self.mask.cumsum(dim=-1) - 1).clamp(min=0) + read  # as ids
        self.padded = any(len(text) < width for text in rest)
        self.segments = Segments.of([len(text) for text in rest]).to(model.device) if self.packed else None
        if not self.packed:
            self._unfold(0)

    def logits(self) -> Tensor:
        """Return the logits of the next token, [b, v]."""
        if self.segments is not None:
            return self._read(self.segments)
        logits: Tensor = self.model(
            input_ids=self.ids,
            attention_mask=self.mask if self.padded else None,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            **({"logits_to_keep": 1} if self.takes_part else {}),
            **({"before": self.shared.states} if self.shared else {}),
        ).logits
        return logits[:, -1]

    def _read(self, segments: Segments) -> Tensor:
        """Return the logits behind each text, [b, v]: the texts are read one after another."""
        places = self.mask.bool()
        for layer in self.layers:
            layer.places = places
        last = torch.tensor(segments.lengths, device=self.ids.device).cumsum(0) - 1
        logits: Tensor = self.model(
            input_ids=self.ids[places][None],
            position_ids=self.positions[places][None],
            past_key_values=self.cache,
            use_cache=True,
            segments=segments,
            **({"logits_to_keep": last} if self.takes_part else {}),
            **({"before": self.shared.states} if self.shared else {}),
        ).logits
        self.segments = None
        return logits[0] if self.takes_part else logits[0, last]

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
        common = shared(self.shared.ids, other.shared.ids) if self.shared and other.shared else 0
        for one in (self, other):
            one._unfold(common if common >= LEAST else 0)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.join(theirs)
        width = max(self.mask.shape[1], other.mask.shape[1])
        masks = [torch.nn.functional.pad(one.mask, (width - one.mask.shape[1], 0)) for one in (self, other)]
        self.mask = torch.cat(masks)
        self.ids = torch.cat([self.ids, other.ids])
        self.positions = torch.cat([self.positions, other.positions])
        self.padded = not bool(self.mask.all())

    def _unfold(self, tokens: int) -> None:
        """Give each row its own copy of the shared start, but for its first so many tokens."""
        if self.shared is None or len(self.shared.ids) == tokens:
            return
        for layer, states in zip(self.layers, self.shared.states, strict=True):
            layer.put_before(*(part[:, :, tokens:] for part in states), len(self.mask))
        self.mask = torch.nn.functional.pad(self.mask, (len(self.shared.ids) - tokens, 0), value=1)
        self.shared = self.shared.cut(tokens) if tokens else None

    def read(self, row: int, text: Sequence[int]) -> Prefix | None:
        """Return what the model has read of a row, whose text is known; None: its state cannot be shared."""
        if not self.grows:
            return None
        there = self.mask[row, : self.layers[0].get_seq_length()].bool()
        states = [(layer.keys[row : row + 1, :, there], layer.values[row : row + 1, :, there]) for layer in self.layers]
        tokens = int(there.sum())
        if self.shared:
            tokens += len(self.shared.ids)
            states = [
                (torch.cat([first[0], own[0]], dim=2), torch.cat([first[1], own[1]], dim=2))
                for first, own in zip(self.shared.states, states, strict=True)
            ]
        return Prefix(tuple(text[:tokens]), tuple(states))


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


def packs(model: PreTrainedModel) -> bool:
    """Return whether texts one after another, behind a start that they share, give what each alone gives.

    Found out by trying, once for a model: an architecture may not hand on what attention needs for it.
    """
    if model.config._attn_implementation != NAME:
        return False
    if model not in _PACKS:
        try:
            with torch.inference_mode():
                _PACKS[model] = close(_probed(model, packed=False), _probed(model, packed=True))
        except Exception as error:  # an architecture may refuse in any way
            logger.debug("%s pads its prompts: %s", type(model).__name__, error)
            _PACKS[model] = False
    return _PACKS[model]


def _probed(model: PreTrainedModel, *, packed: bool) -> Tensor:
    """Return the logits of two steps for a few texts, [2 b, v]."""
    ids = [number % int(model.config.get_text_config().vocab_size) for number in range(12)]
    texts = [ids[:5], ids[:9], [*ids[:4], *ids[9:]]]
    begun = CachedForward(model, [ids[:4]], 0, packed=packed)
    begun.logits()
    forward = CachedForward(model, texts, 0, begun.read(0, ids), packed=packed)
    first = forward.logits()
    forward.append(torch.tensor(ids[: len(texts)], device=model.device))
    return torch.cat([first, forward.logits()])


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

"""The decoding loop over one batch: left-padded prompts in, token ids out, finished rows leave the batch.

b rows still going, t tokens so far, v vocabulary.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from llsflow.sampling import choose, penalise
from llsflow.schema.sampling import GreedySamplingStrategy, SamplingParams, SamplingStrategy

# Tokens of room that a full cache grows by; each growth copies the cache once.
ROOM = 64

Finish = Literal["stop", "length"]


class StopCheck(Protocol):
    """Whether the tokens made so far hold a text that ends the generation."""

    def __call__(self, made: Sequence[int]) -> bool:
        """Return whether they do."""


@dataclass
class Row:
    """One prompt and what was generated for it."""

    index: int
    """Place in the caller's order."""
    prompt: list[int]
    limit: int
    """Most tokens to generate."""
    rng: random.Random
    sampling: SamplingParams
    stop: StopCheck | None = None
    """Looks for the stop texts of `sampling`."""
    made: list[int] = field(default_factory=list)
    finish: Finish | None = None
    refused: str | None = None
    """Why no token could be chosen; the row left the batch."""
    dropped: bool = False
    """Set by whoever no longer wants the answer, from any thread: the row leaves at the next step."""

    @property
    def number(self) -> int:
        """Return the row's number as people count, from 1."""
        return self.index + 1

    @property
    def going(self) -> bool:
        """Return whether more tokens are wanted."""
        return self.finish is None and self.refused is None and not self.dropped

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Append a token, and end where it is one of `ends`, completes a stop text or is the last allowed."""
        self.made.append(token)
        if token in ends or (self.stop and self.stop(self.made)):
            self.finish = "stop"
        elif len(self.made) >= self.limit:
            self.finish = "length"

    def refuse(self) -> None:
        """Leave because the logits are not numbers."""
        self.refused = (
            f"the model's output is not a number after {len(self.made)} tokens: its weights are damaged, or its "
            "precision is too low (fp16 overflows where bf16 does not)"
        )


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

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`."""
        if self.room is not None:
            self.room = (self.room[0].index_select(0, beam_idx), self.room[1].index_select(0, beam_idx))
            end = self.get_seq_length()
            self.keys, self.values = self.room[0][:, :, :end], self.room[1][:, :, :end]


def _roomy(states: Tensor, old: Tensor | None, end: int) -> Tensor:
    shape = list(states.shape)
    shape[-2] = end + ROOM
    room = states.new_empty(shape)
    if old is not None:
        room[:, :, : old.shape[-2]] = old
    return room


class Forward(Protocol):
    """The model as the loop needs it: the next logits of a batch that grows by a token and loses rows."""

    def logits(self) -> Tensor:
        """Return the logits of the next token, [b, v]."""

    def append(self, tokens: Tensor) -> None:
        """Go on with `tokens` [b]."""

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows of the batch only."""


class CachedForward:
    """Left-padded prompts, then one token a step: what was read stays in the model's cache."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], pad: int) -> None:
        self.model = model
        takes_part = "logits_to_keep" in _parameters(model)
        self.extra: dict[str, Any] = {"logits_to_keep": 1} if takes_part else {}
        # Any: transformers types its caches for beam search, where the rows of a batch never change in number.
        self.cache: Any = DynamicCache(config=model.config)
        self.cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in self.cache.layers]
        width = max(len(row.prompt) for row in rows)
        ids = [[pad] * (width - len(row.prompt)) + row.prompt for row in rows]
        mask = [[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        self.ids = torch.tensor(ids, device=model.device)  # [b, t], later [b, 1]
        self.mask = torch.tensor(mask, device=model.device)  # [b, t]
        self.positions = (self.mask.cumsum(dim=-1) - 1).clamp(min=0)  # as ids
        self.padded = any(len(row.prompt) < width for row in rows)

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
        """Go on with these rows of the batch only."""
        index = torch.tensor(rows, device=self.ids.device)
        self.ids, self.mask, self.positions = self.ids[index], self.mask[index], self.positions[index]
        self.cache.reorder_cache(index)


class RereadForward:
    """Right-padded texts, read from the start at each step: slow, but right for every causal model."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row], pad: int) -> None:
        self.model = model
        self.texts = [list(row.prompt) for row in rows]
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


def make_forward(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> Forward:
    """Return the fastest way to run this model that is right.

    Left padding needs positions that the caller can set; a row can leave a cache of keys and values, while other
    kinds of state (Mamba, RWKV) differ from model to model.
    """
    cached = {"past_key_values", "position_ids", "attention_mask"} <= _parameters(model)
    return CachedForward(model, rows, pad) if cached else RereadForward(model, rows, pad)


def _parameters(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


class Chooser:
    """Picks each row's next token as its own sampling parameters say."""

    def __init__(self, rows: Sequence[Row], like: Tensor) -> None:
        penalties = [row.sampling.repetition_penalty or 1.0 for row in rows]
        self.penalties = torch.tensor(penalties, dtype=like.dtype, device=like.device).unsqueeze(-1)  # [b, 1]
        self.seen: Tensor | None = None
        if any(penalty != 1.0 for penalty in penalties):
            self.seen = torch.zeros_like(like, dtype=torch.bool)  # [b, v]
            for place, row in enumerate(rows):
                self.seen[place, torch.tensor(row.prompt, device=like.device)] = True
        self.groups = _by_strategy(rows)

    def __call__(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """Return the next token [b] for logits [b, v]."""
        if self.seen is not None:
            logits = penalise(logits, self.seen, self.penalties)
        if len(self.groups) == 1:
            tokens = _choose(logits, rows, next(iter(self.groups)))
        else:
            tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
            for strategy, places in self.groups.items():
                index = torch.tensor(places, device=logits.device)
                tokens[index] = _choose(logits[index], [rows[place] for place in places], strategy)
        if self.seen is not None:
            self.seen.scatter_(1, tokens.unsqueeze(-1), True)
        return tokens

    def keep(self, places: list[int], rows: Sequence[Row]) -> None:
        """Go on with these places of the batch only, which hold `rows`."""
        self.groups = _by_strategy(rows)
        if self.seen is not None:
            self.seen, self.penalties = self.seen[places], self.penalties[places]


def _by_strategy(rows: Sequence[Row]) -> dict[SamplingStrategy, list[int]]:
    groups: dict[SamplingStrategy, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.sampling.strategy, []).append(place)
    return groups


def _choose(logits: Tensor, rows: Sequence[Row], strategy: SamplingStrategy) -> Tensor:
    if isinstance(strategy, GreedySamplingStrategy):
        return choose(logits, strategy, logits)
    uniforms = torch.tensor([row.rng.random() for row in rows], dtype=torch.float64)
    return choose(logits, strategy, uniforms.to(logits.device))


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    rows: Sequence[Row],
    ends: frozenset[int],
    pad: int,
    on_step: Callable[[Sequence[Row]], None],
) -> None:
    """Generate for `rows` together until each has ended; `on_step` is told after each step which just did.

    Args:
        model: a causal language model.
        rows: what to generate; each keeps what was made, and how it ended.
        ends: tokens that end a row.
        pad: fills the shorter prompts up.
        on_step: called with the rows that left the batch: finished, refused or dropped.
    """
    going = list(rows)
    forward = make_forward(model, going, pad)
    chooser: Chooser | None = None
    while going:
        logits = forward.logits().float()
        chooser = chooser or Chooser(going, logits)
        numbers = logits.amax(dim=-1).isfinite()  # the largest of numbers with a NaN among them is NaN
        healthy = numbers.tolist()
        if not all(healthy):
            logits = torch.where(numbers.unsqueeze(-1), logits, 0.0)  # something can be drawn, and is thrown away
        tokens = chooser(logits, going)
        for row, token, fine in zip(going, tokens.tolist(), healthy, strict=True):
            if fine:
                row.take(token, ends)
            else:
                row.refuse()
        places = [place for place, row in enumerate(going) if row.going]
        on_step([row for row in going if not row.going])
        forward.append(tokens)
        if len(places) < len(going):
            going = [going[place] for place in places]
            if going:
                forward.keep(places)
                chooser.keep(places, going)

"""The decoding loop: prompts in, token ids out; rows join the batch while others are under way, and leave as they end.

b rows still going, v vocabulary.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llsflow.models.cache import Prefix
from llsflow.models.forward import make_forward
from llsflow.models.generation import Finish
from llsflow.sampling import choose, penalise
from llsflow.schema.sampling import GreedySamplingStrategy, SamplingParams, SamplingStrategy

REFILL = 4
"""Offline, rows join once a part of the batch of one in so many has left: each joining costs a copy of the cache."""


class StopCheck(Protocol):
    """Whether the tokens made so far hold a text that ends the generation."""

    def __call__(self, made: Sequence[int]) -> bool:
        """Return whether they do."""


class Constraint(Protocol):
    """Which tokens may come next."""

    def allowed(self, vocabulary: int) -> Tensor:
        """Return which of so many tokens may come next, bool [v]."""

    def take(self, token: int) -> bool:
        """Go on behind a token, and return whether nothing may follow it; ValueError: it cannot be followed further."""


@dataclass(eq=False)
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
    constraint: Constraint | None = None
    made: list[int] = field(default_factory=list)
    finish: Finish | None = None
    refused: str | None = None
    """Why no token could be chosen; the row left the batch."""
    read: Prefix | None = None
    """What the model had read of it when it left a batch that keeps this."""
    dropped: bool = False
    """Set by whoever no longer wants the answer, from any thread: the row leaves at the next step."""

    @property
    def number(self) -> int:
        """Return the row's number as people count, from 1."""
        return self.index + 1

    @property
    def text(self) -> list[int]:
        """Return the prompt and what was made, which a row that joins again goes on behind."""
        return self.prompt + self.made

    @property
    def going(self) -> bool:
        """Return whether more tokens are wanted."""
        return self.finish is None and self.refused is None and not self.dropped

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Append a token, and end where it is one of `ends`, completes a stop text or is the last allowed."""
        self.made.append(token)
        try:
            over = self.constraint is not None and self.constraint.take(token)
        except ValueError as error:
            self.refused = str(error)
            return
        if over or token in ends or (self.stop and self.stop(self.made)):
            self.finish = "stop"
        elif len(self.made) >= self.limit:
            self.finish = "length"

    def refuse(self) -> None:
        """Leave because the logits are not numbers."""
        self.refused = (
            f"the model's output is not a number after {len(self.made)} tokens: its weights are damaged, or its "
            "precision is too low (fp16 overflows where bf16 does not)"
        )


class Chooser:
    """Picks each row's next token as its own sampling parameters and constraint say."""

    def __init__(self, rows: Sequence[Row], like: Tensor) -> None:
        penalties = [row.sampling.repetition_penalty or 1.0 for row in rows]
        self.penalties = torch.tensor(penalties, dtype=like.dtype, device=like.device).unsqueeze(-1)  # [b, 1]
        self.seen: Tensor | None = None
        if any(penalty != 1.0 for penalty in penalties):
            self.seen = torch.zeros_like(like, dtype=torch.bool)  # [b, v]
            for place, row in enumerate(rows):
                self.seen[place, torch.tensor(row.text, device=like.device)] = True
        self._look(rows)

    def __call__(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        """Return the next token [b] for logits [b, v]."""
        if self.seen is not None:
            logits = penalise(logits, self.seen, self.penalties)
        if self.constrained:
            logits = logits.clone()
            for place in self.constrained:
                constraint = rows[place].constraint
                assert constraint is not None  # noqa: S101 - such are the places
                logits[place].masked_fill_(~constraint.allowed(logits.shape[-1]).to(logits.device), float("-inf"))
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
        self._look(rows)
        self.penalties = self.penalties[places]
        if self.seen is not None:
            self.seen = self.seen[places]

    def join(self, other: Chooser, rows: Sequence[Row]) -> None:
        """Take in the rows of another, behind the own ones; `rows` are all of them."""
        sizes = (len(self.penalties), len(other.penalties))
        self.penalties = torch.cat([self.penalties, other.penalties])
        like = self.seen if self.seen is not None else other.seen
        if like is not None:
            both = zip((self.seen, other.seen), sizes, strict=True)
            self.seen = torch.cat([seen if seen is not None else like.new_zeros(n, like.shape[1]) for seen, n in both])
        self._look(rows)

    def _look(self, rows: Sequence[Row]) -> None:
        self.groups: dict[SamplingStrategy, list[int]] = {}
        for place, row in enumerate(rows):
            self.groups.setdefault(row.sampling.strategy, []).append(place)
        self.constrained = [place for place, row in enumerate(rows) if row.constraint]


def _choose(logits: Tensor, rows: Sequence[Row], strategy: SamplingStrategy) -> Tensor:
    if isinstance(strategy, GreedySamplingStrategy):
        return choose(logits, strategy, logits)
    uniforms = torch.tensor([row.rng.random() for row in rows], dtype=torch.float64)
    return choose(logits, strategy, uniforms.to(logits.device))


class Batch:
    """Rows that are generated together."""

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Row],
        ends: frozenset[int],
        pad: int,
        prefix: Prefix | None = None,
        *,
        keeps_read: bool = False,
    ) -> None:
        self.rows = list(rows)
        self.ends = ends
        self.keeps_read = keeps_read
        self.forward = make_forward(model, [row.text for row in rows], pad, prefix)
        self.chooser: Chooser | None = None

    @property
    def grows(self) -> bool:
        """Return whether rows can join."""
        return self.forward.grows

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Give every row its next token, and return those that left: finished, refused or dropped."""
        logits = self.forward.logits().float()
        self.chooser = self.chooser or Chooser(self.rows, logits)
        numbers = logits.amax(dim=-1).isfinite()  # the largest of numbers with a NaN among them is NaN
        healthy = numbers.tolist()
        if not all(healthy):
            logits = torch.where(numbers.unsqueeze(-1), logits, 0.0)  # something can be drawn, and is thrown away
        tokens = self.chooser(logits, self.rows)
        for row, token, fine in zip(self.rows, tokens.tolist(), healthy, strict=True):
            if fine:
                row.take(token, self.ends)
            else:
                row.refuse()
        self.forward.append(tokens)
        left = [row for row in self.rows if not row.going]
        if left and self.keeps_read:
            for place, row in enumerate(self.rows):
                if row.finish:
                    row.read = self.forward.read(place, row.text)
        if left:
            places = [place for place, row in enumerate(self.rows) if row.going]
            self.rows = [self.rows[place] for place in places]
            if self.rows:
                self.forward.keep(places)
                self.chooser.keep(places, self.rows)
        return left

    @torch.inference_mode()
    def join(self, other: Batch) -> None:
        """Take in the rows of another, behind the own ones; both have made a step."""
        if not other.rows:
            return
        if not self.rows:
            self.rows, self.forward, self.chooser = other.rows, other.forward, other.chooser
            return
        assert self.chooser is not None  # noqa: S101 - a step makes it
        assert other.chooser is not None  # noqa: S101
        self.rows += other.rows
        self.forward.join(other.forward)
        self.chooser.join(other.chooser, self.rows)


def decode(
    model: PreTrainedModel,
    rows: Sequence[Row],
    ends: frozenset[int],
    pad: int,
    on_step: Callable[[Sequence[Row]], None],
    *,
    at_once: int,
    prefix: Prefix | None = None,
) -> None:
    """Generate for `rows`, `at_once` together, until each has ended; `on_step` is told after each step which just did.

    Args:
        model: a causal language model.
        rows: what to generate, in the order in which they begin; each keeps what was made, and how it ended.
        ends: tokens that end a row.
        pad: fills the shorter prompts up.
        on_step: called with the rows that left the batch: finished, refused or dropped.
        at_once: most rows in the batch.
        prefix: the start of every prompt, as `forward.read_prefix` read it.
    """
    waiting = deque(rows)
    batch: Batch | None = None
    while waiting or batch:
        free = at_once - (len(batch.rows) if batch else 0)
        if waiting and (batch is None or (batch.grows and free * REFILL >= at_once)):
            joining = Batch(model, [waiting.popleft() for _ in range(min(free, len(waiting)))], ends, pad, prefix)
            on_step(joining.step())
            if batch is None:
                batch = joining
            else:
                batch.join(joining)
        if batch and batch.rows:
            on_step(batch.step())
        if batch and not batch.rows:
            batch = None

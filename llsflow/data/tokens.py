"""Rows as token ids with a loss mask, in arrays that are mapped from disk.

Letters: n rows kept, t tokens of all of them together.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llsflow.data import preference_row, training_row
from llsflow.data.conversation import Conversation, Row
from llsflow.data.files import NumberedRow
from llsflow.data.template import ChatTokenizer, loss_spans, mask_of, render
from llsflow.errors import DataError, Mistake
from llsflow.schema.training import DatasetFormat

CHUNK = 512
"""Rows tokenised by one call, so that the tokenizer can use every core."""


@dataclass(frozen=True)
class TokenSettings:
    """What decides the ids and the mask."""

    data_format: DatasetFormat
    train_on_input: bool
    max_length: int
    overlong: Literal["refuse", "truncate", "drop"]
    pairs: bool = False
    """Rows are preferences: each becomes two, the chosen answer to its prompt and then the rejected one."""


@dataclass(frozen=True)
class TokenFacts:
    """What came of the rows."""

    rows: int
    tokens: int
    loss_tokens: int
    longest: int
    """Tokens of the longest row kept."""
    truncated: int
    dropped: int
    without_loss: int
    """Rows left out because no token of theirs carries loss."""
    ends: bool
    """Whether the mark that ends an answer is ever under loss: else the model does not learn to stop."""


@dataclass(frozen=True)
class TokenTable:
    """Token ids and loss mask of n rows, one after another."""

    input_ids: NDArray[np.int32]
    """Shape [t]."""
    loss_mask: NDArray[np.bool_]
    """Shape [t]."""
    offsets: NDArray[np.int64]
    """Shape [n + 1]: row i is [offsets[i], offsets[i + 1])."""
    numbers: NDArray[np.int64]
    """Shape [n]: the row's number in its file."""

    folder: Path | None = None
    """Where the arrays are mapped from."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process by name where that is enough: mapped arrays would be copied."""
        if self.folder is not None:
            return (TokenTable.load, (self.folder,))
        return (TokenTable, tuple(getattr(self, name) for name in _ARRAYS))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, shape [n]."""
        return np.diff(self.offsets)

    def save(self, folder: Path) -> None:
        """Write the arrays, one file each."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> TokenTable:
        """Map the arrays from disk: opening a large table costs nothing."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, folder=folder)


_ARRAYS = ("input_ids", "loss_mask", "offsets", "numbers")


@dataclass(frozen=True)
class _TokenRow:
    number: int
    ids: list[int]
    mask: list[bool]

    def cut(self, length: int) -> _TokenRow:
        """Return the row's first tokens."""
        return _TokenRow(self.number, self.ids[:length], self.mask[:length])


def tokenize(
    rows: Sequence[NumberedRow],
    name: str,
    tokenizer: ChatTokenizer,
    settings: TokenSettings,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[TokenTable, TokenFacts]:
    """Render, tokenise and mask the rows of the data set `name`.

    Raises:
        DataError: rows over max_length (when they are refused), a template that cannot be masked, or
            0 % or 100 % of the tokens under loss.
    """
    problems: list[Mistake] = []
    kept = _Builder()
    counts = {"truncated": 0, "dropped": 0, "without_loss": 0}
    for example in _examples(rows, name, tokenizer, settings, problems, on_progress):
        longest = max(len(row.ids) for row in example)
        if longest > settings.max_length:
            if settings.overlong == "refuse":
                where = f"{name}:{example[0].number}"
                problems.append(Mistake(where, f"{longest} tokens: allowed are {settings.max_length}"))
                continue
            if settings.overlong == "drop":
                counts["dropped"] += 1
                continue
            counts["truncated"] += 1
            example = [row.cut(settings.max_length) for row in example]  # noqa: PLW2901
        if all(any(row.mask[1:]) for row in example):
            for row in example:
                kept.add(row)
        else:
            counts["without_loss"] += 1
    _refuse(problems)
    table = kept.table()
    eos = getattr(tokenizer, "eos_token_id", None)
    facts = TokenFacts(
        rows=len(table.numbers) // (2 if settings.pairs else 1),
        tokens=len(table.input_ids),
        loss_tokens=int(table.loss_mask.sum()),
        longest=int(table.lengths.max(initial=0)),
        ends=bool((table.loss_mask & (table.input_ids == eos)).any()),
        **counts,
    )
    _preflight(facts, name, settings)
    return table, facts


class _Builder:
    """Rows one after another in flat buffers: five bytes a token, where Python's own integers take forty."""

    def __init__(self) -> None:
        self.ids, self.mask = array("i"), bytearray()
        self.ends, self.numbers = array("q", [0]), array("q")

    def add(self, row: _TokenRow) -> None:
        """Append a row."""
        self.ids.extend(row.ids)
        self.mask.extend(row.mask)
        self.ends.append(len(self.ids))
        self.numbers.append(row.number)

    def table(self) -> TokenTable:
        """Return the rows as arrays over the same memory."""
        return TokenTable(
            np.frombuffer(self.ids, dtype=np.int32) if self.ids else np.empty(0, np.int32),
            np.frombuffer(self.mask, dtype=np.bool_),
            np.frombuffer(self.ends, dtype=np.int64),
            np.frombuffer(self.numbers, dtype=np.int64) if self.numbers else np.empty(0, np.int64),
        )


def _examples(
    rows: Sequence[NumberedRow],
    name: str,
    tokenizer: ChatTokenizer,
    settings: TokenSettings,
    problems: list[Mistake],
    on_progress: Callable[[int], None],
) -> Iterator[list[_TokenRow]]:
    """Yield the token rows of each example: one, or of a preference two."""
    for begin in range(0, len(rows), CHUNK):
        chunk = [(number, _read(row, settings.pairs)) for number, row in rows[begin : begin + CHUNK]]
        texts = [render(tokenizer, answered.conversation) for _, read in chunk for answered in read]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        place = itertools.count()
        for number, read in chunk:
            places = [next(place) for _ in read]
            try:
                yield [
                    _TokenRow(
                        number,
                        encoded["input_ids"][index],
                        _mask(tokenizer, answered, texts[index], encoded["offset_mapping"][index], settings),
                    )
                    for index, answered in zip(places, read, strict=True)
                ]
            except ValueError as error:
                problems.append(Mistake(f"{name}:{number}", str(error)))
        on_progress(min(begin + CHUNK, len(rows)))


@dataclass(frozen=True)
class _Answered:
    conversation: Conversation
    since: int
    """First turn that may carry loss."""


def _read(row: Row, pairs: bool) -> list[_Answered]:
    if not pairs:
        return [_Answered(training_row(row), 0)]
    found = preference_row(row)
    since = len(found.prompt)
    return [_Answered([*found.prompt, *answer], since) for answer in (found.chosen, found.rejected)]


def _mask(
    tokenizer: ChatTokenizer,
    answered: _Answered,
    text: str,
    offsets: Sequence[tuple[int, int]],
    settings: TokenSettings,
) -> list[bool]:
    if settings.train_on_input:
        return [True] * len(offsets)
    spans = loss_spans(tokenizer, answered.conversation, text, settings.data_format, answered.since)
    return mask_of(offsets, spans)


def _refuse(problems: list[Mistake]) -> None:
    if not problems:
        return
    advice = "set recipe.overlong=truncate or =drop, or a larger recipe.max_length where the model's context allows"
    told = problems[:5]
    if len(problems) > len(told):
        told.append(Mistake("", f"and {len(problems) - len(told)} more rows like these"))
    if any("tokens: allowed" in problem.message for problem in problems):
        told.append(Mistake("", advice))
    raise DataError(told)


def _preflight(facts: TokenFacts, name: str, settings: TokenSettings) -> None:
    if facts.rows == 0:
        message = (
            f"no row is left to train on: {facts.dropped} over {settings.max_length} tokens dropped, "
            f"{facts.without_loss} without a token under loss"
        )
        raise DataError([Mistake(name, message)])
    if facts.loss_tokens == facts.tokens and not settings.train_on_input:
        message = (
            f"all {facts.tokens} tokens carry loss: the chat template marks no prompt. "
            "Set train_on_input: true if that is meant, or another model.chat_template"
        )
        raise DataError([Mistake(name, message)])


def preview(table: TokenTable, row: int, tokenizer: Any) -> list[dict[str, Any]]:
    """Return one row as alternating pieces `{text, loss}`, for a page that colours what is learned."""
    begin, end = int(table.offsets[row]), int(table.offsets[row + 1])
    mask = table.loss_mask[begin:end]
    borders = [0, *(np.flatnonzero(np.diff(mask.astype(np.int8))) + 1).tolist(), end - begin]
    return [
        {"text": tokenizer.decode(table.input_ids[begin + a : begin + b].tolist()), "loss": bool(mask[a])}
        for a, b in itertools.pairwise(borders)
    ]

"""Rows as token ids with a loss mask, in arrays that are mapped from disk.

Letters: n rows kept, t tokens of all of them together.
"""

from __future__ import annotations

import copy
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llsflow.data import preference_row, training_row
from llsflow.data.conversation import Row
from llsflow.data.files import NumberedRow
from llsflow.data.learned import Piece, Written, begins_inside, mask_of, written
from llsflow.data.problems import grouped
from llsflow.data.template import ChatTokenizer, Span, TemplateRefusesError
from llsflow.errors import DataError, Mistake
from llsflow.schema.training import DatasetFormat

CHUNK = 512
"""Rows tokenised by one call, so that the tokenizer can use every core."""

MOST_NAMED = 5
"""Kinds of mistakes that are named; the rest are counted."""

MERGED = (
    "whose answer begins inside a token: the opened turn ends in a space, one token with the first "
    "word, so in use the prompt ends in another token. Let the chat template write that space with the answer"
)


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
    sequences: int
    """Token sequences of these rows: more than the rows where a chat template needs some turn by turn."""
    tokens: int
    loss_tokens: int
    longest: int
    """Tokens of the longest row kept."""
    truncated: int
    dropped: int
    without_loss: int
    """Rows left out because no token of theirs carries loss."""
    alike: int
    """Pairs left out because their answers are the same tokens once they are cut."""
    ends: bool
    """Whether the mark that ends an answer is ever under loss: else the model does not learn to stop."""
    notes: dict[str, int]
    """How many rows the chat template or the tokenizer treats in a way that their author should know, by the way."""


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
    ends: Collection[int] = (),
) -> tuple[TokenTable, TokenFacts]:
    """Render, tokenise and mask the rows of the data set `name`.

    Args:
        rows: each with its number.
        name: how messages name the data set.
        tokenizer: with the chat template.
        settings: what decides the ids and the mask.
        on_progress: told how many rows are done.
        ends: ids of further tokens that end an answer, beside the tokenizer's own end mark.

    Raises:
        DataError: rows over max_length (when they are refused), rows that the template refuses, or 0 % or 100 % of the
            tokens under loss.
    """
    problems: list[Mistake] = []
    kept = _Builder()
    counts = {"truncated": 0, "dropped": 0, "without_loss": 0, "alike": 0}
    notes: Counter[str] = Counter()
    plain = numbers = 0
    for example in _examples(rows, name, _with_whole_offsets(tokenizer), settings, problems, on_progress):
        sequences = example.sequences
        longest = max(len(row.ids) for row in sequences)
        if longest > settings.max_length:
            if settings.overlong == "refuse":
                where = f"{name}:{sequences[0].number}"
                problems.append(Mistake(where, f"{longest} tokens: allowed are {settings.max_length}"))
                continue
            if settings.overlong == "drop":
                counts["dropped"] += 1
                continue
            counts["truncated"] += 1
            sequences = [row.cut(settings.max_length) for row in sequences]
        learning = [row for row in sequences if any(row.mask[1:])]
        if settings.pairs and sequences[0].ids == sequences[1].ids:
            counts["alike"] += 1
        elif not learning or (settings.pairs and len(learning) < len(sequences)):
            counts["without_loss"] += 1
        else:
            for row in learning:
                kept.add(row)
            notes.update(example.notes)
            plain += example.plain
            numbers += 1
    _refuse(problems)
    table = kept.table()
    marks = {*ends, tokenizer.eos_token_id} - {None}
    facts = TokenFacts(
        rows=numbers,
        sequences=len(table.numbers),
        tokens=len(table.input_ids),
        loss_tokens=int(table.loss_mask.sum()),
        longest=int(table.lengths.max(initial=0)),
        ends=bool(table.loss_mask[np.isin(table.input_ids, list(marks))].any()),
        notes=dict(notes),
        **counts,
    )
    _preflight(facts, name, settings, all_plain=plain == numbers)
    return table, facts


def _with_whole_offsets(tokenizer: Any) -> Any:
    """Return a tokenizer whose offsets hold the white space of a token too, or this one where it is so already.

    `trim_offsets` of a byte-level tokenizer changes nothing but the offsets: `Ġyes` is then where `yes` is, and the
    border of a span that begins with its space would be one token off.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else ""
    if _TRIMS not in text:
        return tokenizer
    from tokenizers import Tokenizer

    whole = copy.deepcopy(tokenizer)
    whole._tokenizer = Tokenizer.from_str(text.replace(_TRIMS, _TRIMS.replace("true", "false")))
    return whole


_TRIMS = '"trim_offsets":true'


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


@dataclass(frozen=True)
class _Example:
    """What one row became: one sequence or more, or of a preference two."""

    sequences: list[_TokenRow]
    notes: set[str]
    plain: bool


def _examples(
    rows: Sequence[NumberedRow],
    name: str,
    tokenizer: ChatTokenizer,
    settings: TokenSettings,
    problems: list[Mistake],
    on_progress: Callable[[int], None],
) -> Iterator[_Example]:
    """Yield the token rows of each example; rows that cannot be written go to `problems`."""
    for begin in range(0, len(rows), CHUNK):
        chunk: list[tuple[int, Written]] = []
        for number, row in rows[begin : begin + CHUNK]:
            try:
                chunk.append((number, _written(tokenizer, row, settings)))
            except TemplateRefusesError as error:
                problems.append(Mistake(f"{name}:{number}", f"the chat template refuses this row: {error.reason}"))
            except ValueError as error:
                problems.append(Mistake(f"{name}:{number}", str(error)))
        encoded = iter(_encoded(tokenizer, [piece for _, made in chunk for piece in made.pieces]))
        for number, made in chunk:
            sequences, notes = [], set(made.notes)
            for piece in made.pieces:
                ids, offsets = next(encoded)
                if piece.plain:
                    sequences.append(_TokenRow(number, ids, [True] * len(ids)))
                    continue
                sequences.append(_TokenRow(number, ids, mask_of(offsets, piece.spans)))
                if begins_inside(offsets, piece.spans):
                    notes.add(MERGED)
            yield _Example(sequences, notes, made.pieces[0].plain)
        on_progress(min(begin + CHUNK, len(rows)))


def _encoded(tokenizer: ChatTokenizer, pieces: Sequence[Piece]) -> Iterator[tuple[list[int], Sequence[Span]]]:
    """Yield ids and offsets of each piece; a plain text is between the marks of the tokenizer, with its end mark."""
    by_template = [piece.text for piece in pieces if not piece.plain]
    plain = [piece.text for piece in pieces if piece.plain]
    written = tokenizer(by_template, add_special_tokens=False, return_offsets_mapping=True) if by_template else {}
    alone = tokenizer(plain, add_special_tokens=True) if plain else {}
    places = (itertools.count(), itertools.count())
    end = tokenizer.eos_token_id
    for piece in pieces:
        place = next(places[piece.plain])
        if not piece.plain:
            yield written["input_ids"][place], written["offset_mapping"][place]
            continue
        ids = list(alone["input_ids"][place])
        yield (ids if end is None or ids[-1:] == [end] else [*ids, end]), ()


def _written(tokenizer: ChatTokenizer, row: Row, settings: TokenSettings) -> Written:
    """Return the texts of a row.

    Raises:
        ValueError: it cannot be used, and why.
    """
    if not settings.pairs:
        conversation = training_row(row)
        if isinstance(conversation, str):
            return Written([Piece(conversation, [], plain=True)])
        return written(tokenizer, conversation, settings.data_format, everything=settings.train_on_input)
    found = preference_row(row)
    since = len(found.prompt)
    both = [written(tokenizer, answer, settings.data_format, since=since) for answer in (found.chosen, found.rejected)]
    if any(len(made.pieces) != 1 for made in both):
        raise ValueError(
            "the chat template writes an answer differently once others follow: a preference is between single "
            "sequences, so let each of chosen and rejected have one answer after the prompt"
        )
    return Written([made.pieces[0] for made in both], both[0].notes | both[1].notes)


def _refuse(problems: list[Mistake]) -> None:
    if not problems:
        return
    advice = "set recipe.overlong=truncate or =drop, or a larger recipe.max_length where the model's context allows"
    found = grouped(problems, MOST_NAMED)
    if any("tokens: allowed" in problem.message for problem in problems):
        found.append(Mistake("", advice))
    raise DataError(found)


def _preflight(facts: TokenFacts, name: str, settings: TokenSettings, *, all_plain: bool) -> None:
    if facts.rows == 0:
        message = (
            f"no row is left to train on: {facts.dropped} over {settings.max_length} tokens dropped, "
            f"{facts.without_loss} without a token under loss, {facts.alike} pairs the same once they are cut"
        )
        raise DataError([Mistake(name, message)])
    if facts.loss_tokens == facts.tokens and not settings.train_on_input and not all_plain:
        message = (
            f"all {facts.tokens} tokens carry loss: the chat template marks no prompt. "
            "Set train_on_input: true if that is meant, or another model.chat_template"
        )
        raise DataError([Mistake(name, message)])


def check_vocabulary(table: TokenTable, size: int, name: str, tokenizer: ChatTokenizer) -> None:
    """Refuse rows with tokens that the model's embedding has no row for.

    Args:
        table: of the rows.
        size: rows of the embedding.
        name: how messages name the data set.
        tokenizer: that made the tokens.

    Raises:
        DataError: there are such tokens, with the first row of them.
    """
    beyond = np.flatnonzero(table.input_ids >= size)
    if not len(beyond):
        return
    place = int(beyond[0])
    row = int(table.numbers[np.searchsorted(table.offsets, place, side="right") - 1])
    token = int(table.input_ids[place])
    message = (
        f"token {tokenizer.decode([token])!r} has the id {token}, and the model's embedding has vocab_size {size}: "
        f"tokenizer and model do not belong together ({len(beyond):,} such tokens in all). Take the tokenizer that "
        "came with the model, or enlarge the embedding (model.resize_token_embeddings) and save both"
    )
    raise DataError([Mistake(f"{name}:{row}", message)])


def preview(table: TokenTable, row: int, tokenizer: Any) -> list[dict[str, Any]]:
    """Return one row as alternating pieces `{text, loss}`, for a page that colours what is learned."""
    begin, end = int(table.offsets[row]), int(table.offsets[row + 1])
    mask = table.loss_mask[begin:end]
    borders = [0, *(np.flatnonzero(np.diff(mask.astype(np.int8))) + 1).tolist(), end - begin]
    return [
        {"text": tokenizer.decode(table.input_ids[begin + a : begin + b].tolist()), "loss": bool(mask[a])}
        for a, b in itertools.pairwise(borders)
    ]

"""The one shape that every row format becomes: a conversation, with the answer last."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Row = Mapping[str, Any]


class Message(TypedDict):
    """One turn, as chat templates take it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


Conversation = list[Message]

ROLES = ("system", "user", "assistant", "tool")

ANSWERS = frozenset({"answer", "expected_answer", "completion", "chosen", "rejected"})
"""Columns that hold an answer: a row with one of them is read by a format that reads it, or by none."""


@dataclass(frozen=True)
class RowFormat:
    """How rows with certain columns are read."""

    columns: tuple[str, ...]
    """A row that has all of them is read by this format."""
    training: Callable[[Row], Conversation]
    """Row -> conversation that ends with the assistant's answer; ValueError says what is wrong."""
    question: Callable[[Row], tuple[Conversation, str | None]]
    """Row -> what is asked, and the expected answer, None where there is none; ValueError says what is wrong."""
    turns: Callable[[Row], Conversation] | None = None
    """Row -> all that it says, where that is more than one conversation; None: as `training`."""
    asks: Callable[[Row], Conversation] | None = None
    """Row -> what the model is given; None: all but the last turn of `training`."""
    answered: bool = True
    """False: a row of this format has no answer, but further columns that scoring functions read."""

    @functools.cached_property
    def _needed(self) -> frozenset[str]:
        return frozenset(self.columns)

    def fits(self, row: Row) -> bool:
        """Return whether the row has the columns."""
        if not row.keys() >= self._needed:
            return False
        return self.answered or (len(row) > len(self._needed) and row.keys().isdisjoint(ANSWERS))

    def read(self, row: Row) -> Conversation:
        """Return all turns of a row, whatever it will be used for.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        return (self.turns or self.training)(row)

    def prompt(self, row: Row) -> Conversation:
        """Return what the model is given of a row, before it answers.

        Raises:
            ValueError: the row cannot be used, and why.
        """
        return self.asks(row) if self.asks else self.training(row)[:-1]


def unanswered(column: str, ask: Callable[[Row], Conversation]) -> RowFormat:
    """Return the format of rows that ask and expect no certain answer: their other columns say what a good one is."""
    return RowFormat((column,), training=ask, question=lambda row: (ask(row), None), asks=ask, answered=False)


def text_of(row: Row, column: str) -> str:
    """Return a column that must hold text.

    Raises:
        ValueError: it is missing, empty or of another type.
    """
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {_found(value)}: a text is needed")
    if not value:
        raise ValueError(f"{column} is empty: a text is needed")
    return value


def messages_of(row: Row, column: str = "messages") -> Conversation:
    """Return a column that must hold a list of messages.

    Raises:
        ValueError: a message, role or content is not what a chat template takes.
    """
    value = row.get(column)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} is {_found(value)}: a list of messages is needed")
    return [_message(item, f"{column}[{number}]") for number, item in enumerate(value)]


def _message(item: object, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} is {_found(item)}: {{role, content}} is needed")
    role = item.get("role")
    if role not in ROLES:
        raise ValueError(f"{where}.role is {role!r}: allowed are {', '.join(ROLES)}")
    return Message(role=role, content=_content(item.get("content"), f"{where}.content"))


def _content(value: object, where: str) -> str:
    """Content is a text, or the spec's list of parts of type text."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            found = f"a part of type {part.get('type')!r}" if isinstance(part, Mapping) else _found(part)
            raise ValueError(f"{where} is {found}: a text is needed")
        texts.append(part["text"])
    return "".join(texts)


def _found(value: object) -> str:
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"

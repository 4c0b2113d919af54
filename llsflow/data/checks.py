"""Rows on their way into the store: each checked against the purpose, counted and written as the store keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llsflow.data import row_format
from llsflow.data.conversation import Row
from llsflow.data.problems import grouped
from llsflow.data.values import refuse_half_characters_of_row
from llsflow.errors import DataError, Mistake
from llsflow.schema.datasets import DatasetPurpose
from llsflow.store import Batch, encode_row

MAX_TOLD = 20
"""Rows that cannot be used and are told; after so many, reading stops."""


@dataclass
class RowCheck:
    """Checks rows one by one."""

    purpose: DatasetPurpose
    problems: list[Mistake] = field(default_factory=list)
    """Rows that cannot be used, and why."""
    trains: bool | None = None
    """Whether the rows are conversations to learn from, or else preferences; None: there was no row yet."""
    lines: list[bytes] = field(default_factory=list, init=False)
    characters: int = field(default=0, init=False)
    turns: int = field(default=0, init=False)

    def take(self, row: Row, where: str) -> int:
        """Add a row to the batch, or to the problems; return its length in bytes."""
        try:
            known = row_format(row, self.purpose)
            conversation = known.read(row)
            if self.trains is not (known.turns is None):
                self._begin(known.turns is None)
            line = encode_row(row)
            refuse_half_characters_of_row(row, line, known.reads)
        except ValueError as error:
            self.problems.append(Mistake(where, str(error)))
            return 0
        self.lines.append(line)
        self.turns += len(conversation.messages)
        self.characters += conversation.characters
        return len(line)

    def batch(self) -> Batch:
        """Return what was taken since the last batch."""
        batch = Batch(self.lines, self.characters, self.turns)
        self.lines, self.characters, self.turns = [], 0, 0
        return batch

    @property
    def full(self) -> bool:
        """Whether there are more problems than are told."""
        return len(self.problems) > MAX_TOLD

    def refuse(self) -> None:
        """Tell the problems, if there are any.

        Raises:
            DataError: rows that cannot be used.
        """
        if self.full:
            rest = Mistake("", "and perhaps more rows like these: reading stopped there")
            raise DataError([*grouped(self.problems, MAX_TOLD), rest])
        if self.problems:
            raise DataError(grouped(self.problems, MAX_TOLD))

    def _begin(self, trains: bool) -> None:
        if self.trains is not None:
            kinds = ("preferences (prompt+chosen+rejected)", "conversations")
            raise ValueError(
                f"is of {kinds[trains]}, the rows before it of {kinds[not trains]}: a data set holds one of them, "
                "as supervised fine-tuning takes the one and preference optimisation the other"
            )
        self.trains = trains


def check_rows(rows: Iterable[Row], purpose: DatasetPurpose, trains: bool | None = None) -> Batch:
    """Return rows as the store takes them; `trains`: whether those that they are to follow are conversations.

    Raises:
        DataError: rows that cannot be used, each with its number, counted from 1.
    """
    check = RowCheck(purpose, trains=trains)
    for number, row in enumerate(rows, 1):
        check.take(row, f"row {number}")
        if check.full:
            break
    check.refuse()
    return check.batch()

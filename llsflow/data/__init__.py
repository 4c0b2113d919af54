"""Rows become conversations, conversations become token ids with a loss mask.

One file per family of row formats; a row is read by the first format whose columns it has.
"""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat
from llsflow.data.messages import CHAT_EXPECTED, CHAT_ONLY, MESSAGES, MESSAGES_ANSWER, MESSAGES_ONLY
from llsflow.data.pairs import (
    ALPACA,
    INPUT_EXPECTED,
    INPUT_ONLY,
    PROMPT_COMPLETION,
    PROMPT_ONLY,
    QUESTION_ANSWER,
    QUESTION_ONLY,
    TEXT,
)
from llsflow.data.preferences import PREFERENCES, Preference, preference
from llsflow.data.ranked import RANKED
from llsflow.data.sharegpt import SHAREGPT
from llsflow.schema.datasets import DatasetPurpose

UNANSWERED = (CHAT_ONLY, QUESTION_ONLY, PROMPT_ONLY, INPUT_ONLY)
"""Questions without an expected answer, for scoring functions that read other columns."""

FORMATS: dict[DatasetPurpose, tuple[RowFormat, ...]] = {
    DatasetPurpose.POST_TRAINING_MESSAGES: (
        *(MESSAGES, SHAREGPT, PROMPT_COMPLETION, QUESTION_ANSWER, ALPACA, PREFERENCES, TEXT),
    ),
    DatasetPurpose.EVAL_QUESTION_ANSWER: (QUESTION_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, *UNANSWERED),
    DatasetPurpose.EVAL_MESSAGES_ANSWER: (MESSAGES_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, MESSAGES_ONLY, *UNANSWERED),
    DatasetPurpose.EVAL_RERANK: (RANKED,),
}
"""The row formats of each purpose, the most specific first."""

ASKED = (
    *(MESSAGES_ANSWER, QUESTION_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA),
    *(PREFERENCES, RANKED),
    *UNANSWERED,
)
"""The row formats that can be evaluated, those made for it first."""


def row_format(row: Row, purpose: DatasetPurpose) -> RowFormat:
    """Return the format that reads this row; a column that is null is not there.

    Raises:
        ValueError: the row has the columns of none of the purpose's formats.
    """
    formats = FORMATS[purpose]
    if known := _reading(row, formats):
        return known
    allowed = " or ".join("+".join(known.columns) for known in formats if known.answered)
    if alone := [known.columns[0] for known in formats if not known.answered]:
        allowed += f"; or, without an answer, one of {', '.join(alone)}"
    columns = ", ".join(f"{column} (null)" if value is None else str(column) for column, value in row.items())
    wanted = formats[0].columns if purpose is not DatasetPurpose.POST_TRAINING_MESSAGES else PROMPT_COMPLETION.columns
    renamed = ", ".join(f"{column}: YOUR_COLUMN" for column in wanted)
    raise ValueError(
        f"columns are {columns or 'none'}: purpose {purpose} takes {allowed}. "
        f"Columns with other names: dataset.columns='{{{renamed}}}'"
    )


def _reading(row: Row, formats: tuple[RowFormat, ...]) -> RowFormat | None:
    present = frozenset([column for column, value in row.items() if value is not None])
    for known in formats:
        if known.fits(present):
            return known
    return None


def prefers(row: Row) -> bool:
    """Return whether a row holds a preference, whatever else it holds."""
    return PREFERENCES.fits(frozenset([column for column, value in row.items() if value is not None]))


def unread_columns(row: Row, known: RowFormat) -> list[str]:
    """Return the columns of a training row that its format does not read."""
    return [column for column, value in row.items() if value is not None and column not in known.reads]


def training_row(row: Row) -> Conversation | str:
    """Return what a training row holds: a conversation with the answer last, or a plain text.

    Raises:
        ValueError: the row cannot be used, and why.
    """
    return row_format(row, DatasetPurpose.POST_TRAINING_MESSAGES).training(row)


def preference_row(row: Row) -> Preference:
    """Return what a row of a training data set prefers.

    Raises:
        ValueError: the row cannot be used, or is no preference.
    """
    if not prefers(row):
        found = ", ".join(map(str, row))
        raise ValueError(
            f"columns are {found}: preference optimisation (recipe.kind: dpo) takes prompt+chosen+rejected"
        )
    return preference(row)


def evaluation_row(row: Row) -> tuple[Conversation, str | None]:
    """Return what an evaluation row asks and the expected answer, or None; rows of training data count as well.

    Raises:
        ValueError: the row cannot be used, and why.
    """
    known = _reading(row, ASKED)
    return (known or row_format(row, DatasetPurpose.EVAL_QUESTION_ANSWER)).question(row)

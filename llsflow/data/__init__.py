"""Rows become conversations, conversations become token ids with a loss mask.

One file per row format; a row is read by the first format whose columns it has.
"""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat
from llsflow.data.messages import CHAT_EXPECTED, CHAT_ONLY, MESSAGES, MESSAGES_ANSWER, MESSAGES_ONLY
from llsflow.data.pairs import (
    INPUT_EXPECTED,
    INPUT_ONLY,
    PROMPT_COMPLETION,
    PROMPT_ONLY,
    QUESTION_ANSWER,
    QUESTION_ONLY,
)
from llsflow.data.preferences import PREFERENCES, Preference, preference
from llsflow.data.ranked import RANKED
from llsflow.schema.datasets import DatasetPurpose

UNANSWERED = (CHAT_ONLY, QUESTION_ONLY, PROMPT_ONLY, INPUT_ONLY)
"""Questions without an expected answer, for scoring functions that read other columns."""

FORMATS: dict[DatasetPurpose, tuple[RowFormat, ...]] = {
    DatasetPurpose.POST_TRAINING_MESSAGES: (MESSAGES, PROMPT_COMPLETION, QUESTION_ANSWER, PREFERENCES),
    DatasetPurpose.EVAL_QUESTION_ANSWER: (QUESTION_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, *UNANSWERED),
    DatasetPurpose.EVAL_MESSAGES_ANSWER: (MESSAGES_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, MESSAGES_ONLY, *UNANSWERED),
    DatasetPurpose.EVAL_RERANK: (RANKED,),
}
"""The row formats of each purpose, the most specific first."""

ASKED = (
    *(MESSAGES_ANSWER, QUESTION_ANSWER, CHAT_EXPECTED, INPUT_EXPECTED, MESSAGES, PROMPT_COMPLETION, PREFERENCES),
    RANKED,
    *UNANSWERED,
)
"""The row formats that can be evaluated, those made for it first."""


def row_format(row: Row, purpose: DatasetPurpose) -> RowFormat:
    """Return the format that reads this row.

    Raises:
        ValueError: the row has the columns of none of the purpose's formats.
    """
    for candidate in FORMATS[purpose]:
        if candidate.fits(row):
            return candidate
    formats = FORMATS[purpose]
    allowed = " or ".join("+".join(candidate.columns) for candidate in formats if candidate.answered)
    if alone := [candidate.columns[0] for candidate in formats if not candidate.answered]:
        allowed += f"; or, without an answer, one of {', '.join(alone)} beside columns for a scoring function"
    found = ", ".join(map(str, row)) or "none"
    raise ValueError(f"columns are {found}: purpose {purpose} takes {allowed}")


def training_row(row: Row) -> Conversation:
    """Return the conversation that a training row holds, with the answer last.

    Raises:
        ValueError: the row cannot be used, and why.
    """
    return row_format(row, DatasetPurpose.POST_TRAINING_MESSAGES).training(row)


def preference_row(row: Row) -> Preference:
    """Return what a row of a training data set prefers.

    Raises:
        ValueError: the row cannot be used, or is no preference.
    """
    if row_format(row, DatasetPurpose.POST_TRAINING_MESSAGES) is not PREFERENCES:
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
    for known in ASKED:
        if known.fits(row):
            return known.question(row)
    return row_format(row, DatasetPurpose.EVAL_QUESTION_ANSWER).question(row)

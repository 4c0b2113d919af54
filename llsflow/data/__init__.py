"""Rows become conversations, conversations become token ids with a loss mask.

One file per row format; a row is read by the first format whose columns it has.
"""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat
from llsflow.data.messages import MESSAGES, MESSAGES_ANSWER
from llsflow.data.pairs import PROMPT_COMPLETION, QUESTION_ANSWER
from llsflow.schema.datasets import DatasetPurpose

FORMATS: dict[DatasetPurpose, tuple[RowFormat, ...]] = {
    DatasetPurpose.POST_TRAINING_MESSAGES: (MESSAGES, PROMPT_COMPLETION, QUESTION_ANSWER),
    DatasetPurpose.EVAL_QUESTION_ANSWER: (QUESTION_ANSWER,),
    DatasetPurpose.EVAL_MESSAGES_ANSWER: (MESSAGES_ANSWER,),
}
"""The row formats of each purpose, the most specific first."""


def row_format(row: Row, purpose: DatasetPurpose) -> RowFormat:
    """Return the format that reads this row.

    Raises:
        ValueError: the row has the columns of none of the purpose's formats.
    """
    for candidate in FORMATS[purpose]:
        if all(column in row for column in candidate.columns):
            return candidate
    allowed = " or ".join("+".join(candidate.columns) for candidate in FORMATS[purpose])
    found = ", ".join(map(str, row)) or "none"
    raise ValueError(f"columns are {found}: purpose {purpose} takes {allowed}")


def training_row(row: Row) -> Conversation:
    """Return the conversation that a training row holds, with the answer last.

    Raises:
        ValueError: the row cannot be used, and why.
    """
    return row_format(row, DatasetPurpose.POST_TRAINING_MESSAGES).training(row)


def evaluation_row(row: Row) -> tuple[Conversation, str]:
    """Return what an evaluation row asks and the expected answer; rows of training data count as well.

    Raises:
        ValueError: the row cannot be used, and why.
    """
    for known in (MESSAGES_ANSWER, QUESTION_ANSWER, MESSAGES, PROMPT_COMPLETION):
        if all(column in row for column in known.columns):
            return known.question(row)
    return row_format(row, DatasetPurpose.EVAL_QUESTION_ANSWER).question(row)

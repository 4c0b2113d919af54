"""Rows of `question` and `answer`: one question and its answer."""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat, text_of


def training(row: Row) -> Conversation:
    """Return the question as the user's turn and the answer as the assistant's."""
    asked, answer = question(row)
    return [*asked, {"role": "assistant", "content": answer}]


def question(row: Row) -> tuple[Conversation, str]:
    """Return the question as the user's turn, and the expected answer."""
    return [{"role": "user", "content": text_of(row, "question")}], text_of(row, "answer")


QUESTION_ANSWER = RowFormat(columns=("question", "answer"), training=training, question=question)

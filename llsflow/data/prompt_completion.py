"""Rows of `prompt` and `completion`: one question and its answer."""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat, text_of


def training(row: Row) -> Conversation:
    """Return the prompt as the user's turn and the completion as the assistant's."""
    asked, answer = question(row)
    return [*asked, {"role": "assistant", "content": answer}]


def question(row: Row) -> tuple[Conversation, str]:
    """Return the prompt as the user's turn, and the completion as the expected answer."""
    return [{"role": "user", "content": text_of(row, "prompt")}], text_of(row, "completion")


PROMPT_COMPLETION = RowFormat(columns=("prompt", "completion"), training=training, question=question)

"""Rows of two texts: what is asked and what is answered."""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat, text_of, unanswered


def pair_format(asked: str, answered: str) -> RowFormat:
    """Return the format of rows that hold a question in one column and its answer in another."""

    def question(row: Row) -> tuple[Conversation, str]:
        return [{"role": "user", "content": text_of(row, asked)}], text_of(row, answered)

    def training(row: Row) -> Conversation:
        conversation, answer = question(row)
        return [*conversation, {"role": "assistant", "content": answer}]

    return RowFormat(columns=(asked, answered), training=training, question=question)


PROMPT_COMPLETION = pair_format("prompt", "completion")
QUESTION_ANSWER = pair_format("question", "answer")
INPUT_EXPECTED = pair_format("input_query", "expected_answer")
"""As older data sets of Llama Stack have it."""


def _only(column: str) -> RowFormat:
    return unanswered(column, lambda row: [{"role": "user", "content": text_of(row, column)}])


QUESTION_ONLY, PROMPT_ONLY, INPUT_ONLY = _only("question"), _only("prompt"), _only("input_query")

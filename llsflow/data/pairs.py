"""Rows of texts: what is asked and what is answered, instructions as of Alpaca, and plain text."""

from __future__ import annotations

from llsflow.data.conversation import (
    Message,
    Messages,
    Row,
    RowFormat,
    assistant,
    messages_or_text,
    text_of,
    unanswered,
    user,
)

_MARKS = (True, False, 0, 1, "true", "false", "True", "False", "0", "1")
"""What `label` holds where it says whether an answer is a good one."""


def pair_format(asked: str, answered: str) -> RowFormat:
    """Return the format of rows that hold a question in one column and its answer in another, as texts or messages."""

    def both(row: Row, *, empty: bool) -> tuple[Messages, Messages]:
        prompt, answer = messages_or_text(row, asked, user), messages_or_text(row, answered, assistant, empty=empty)
        if prompt[-1]["role"] == "assistant":
            raise ValueError(f"{asked} ends with an assistant turn: the last turn must ask for the answer")
        if answer[-1]["role"] != "assistant":
            raise ValueError(f"{answered} must end with the assistant's answer")
        return prompt, answer

    def question(row: Row) -> tuple[Messages, str]:
        prompt, answer = both(row, empty=True)
        if "tool_calls" in answer[-1]:
            raise ValueError(f"{answered} ends with a call: scoring functions compare texts")
        return [*prompt, *answer[:-1]], answer[-1]["content"]

    def learned(row: Row) -> Messages:
        refuse_label(row, f"{asked}+{answered}+label")
        prompt, answer = both(row, empty=False)
        asking: Messages = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
        return [*asking, *answer]

    return RowFormat((asked, answered), learned, question)


def refuse_label(row: Row, columns: str) -> None:
    """Refuse a row that marks its answer as good or bad.

    Raises:
        ValueError: it does.
    """
    if row.get("label") is not None and any(row["label"] is mark or row["label"] == mark for mark in _MARKS):
        raise ValueError(
            f"label is {row['label']!r}: {columns} is an unpaired preference (as for KTO), and supervised fine-tuning "
            "would learn the bad answers too: keep the rows whose label is true and remove the column, or pair the "
            "rows as prompt+chosen+rejected for recipe.kind: dpo"
        )


def _instruction(row: Row) -> str:
    """Return the instruction, and in the next line the input where there is one.

    Source: github.com/tatsu-lab/stanford_alpaca (instruction, input, output), as chat models are asked it.
    """
    given = row.get("input")
    instruction = text_of(row, "instruction")
    return f"{instruction}\n{text_of(row, 'input')}" if given not in (None, "") else instruction


def _asked(row: Row) -> Messages:
    system = [Message(role="system", content=text_of(row, "system"))] if row.get("system") not in (None, "") else []
    return [*system, user(_instruction(row))]


def _alpaca(row: Row) -> Messages:
    refuse_label(row, "instruction+output+label")
    return [*_asked(row), assistant(text_of(row, "output"))]


def _plain(row: Row) -> str:
    return text_of(row, "text")


def _plain_asks(_: Row) -> tuple[Messages, str | None]:
    raise ValueError("text is for continued pre-training: a benchmark needs a question, for example question+answer")


PROMPT_COMPLETION = pair_format("prompt", "completion")
QUESTION_ANSWER = pair_format("question", "answer")
INPUT_EXPECTED = pair_format("input_query", "expected_answer")
"""As older data sets of Llama Stack have it."""
ALPACA = RowFormat(
    ("instruction", "output"),
    _alpaca,
    lambda row: (_asked(row), text_of(row, "output", empty=True)),
    optional=("input", "system"),
)
TEXT = RowFormat(("text",), _plain, _plain_asks)
"""Continued pre-training: every token is learned."""


def _only(column: str) -> RowFormat:
    return unanswered(column, lambda row: [user(text_of(row, column))])


QUESTION_ONLY, PROMPT_ONLY, INPUT_ONLY = _only("question"), _only("prompt"), _only("input_query")

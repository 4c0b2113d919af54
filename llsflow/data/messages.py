"""Rows of messages: a conversation; with an answer beside it, a question for an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable

from llsflow.data.conversation import Conversation, Row, RowFormat, messages_of, text_of, unanswered


def training(row: Row) -> Conversation:
    """Return the conversation, which must hold an assistant turn with text.

    Raises:
        ValueError: no assistant turn, or all of them are empty.
    """
    conversation = messages_of(row)
    if not any(turn["role"] == "assistant" and turn["content"] for turn in conversation):
        raise ValueError("messages has no assistant turn with text: there is nothing to learn")
    return conversation


def question(row: Row) -> tuple[Conversation, str | None]:
    """Return the turns before the last assistant turn, and that turn as the expected answer.

    A conversation that ends with another turn is the question as it is, and expects no certain answer.

    Raises:
        ValueError: the conversation asks nothing.
    """
    conversation = messages_of(row)
    if conversation[-1]["role"] != "assistant":
        return conversation, None
    if len(conversation) == 1:
        raise ValueError("messages has nothing but an assistant turn: an earlier turn must ask for it")
    return conversation[:-1], conversation[-1]["content"]


def answered_question(row: Row) -> tuple[Conversation, str]:
    """Return the whole conversation as the question, and the `answer` column.

    Raises:
        ValueError: the conversation ends with the assistant, so there is nothing to answer.
    """
    return _asks(messages_of(row), "messages"), text_of(row, "answer")


def _chat_expected(row: Row) -> tuple[Conversation, str]:
    return _chat(row), text_of(row, "expected_answer")


def _chat(row: Row) -> Conversation:
    """Return `chat_completion_input`, a list of messages or its JSON."""
    column = "chat_completion_input"
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            raise ValueError(f"{column} is text, but not JSON: a list of messages, or its JSON, is needed") from None
    return _asks(messages_of({column: value}, column), column)


def _asks(conversation: Conversation, column: str) -> Conversation:
    if conversation[-1]["role"] == "assistant":
        raise ValueError(f"{column} ends with an assistant turn: the last turn must ask for the answer")
    return conversation


def _answered(question_of: Callable[[Row], tuple[Conversation, str]]) -> Callable[[Row], Conversation]:
    def training(row: Row) -> Conversation:
        conversation, answer = question_of(row)
        return [*conversation, {"role": "assistant", "content": answer}]

    return training


MESSAGES = RowFormat(columns=("messages",), training=training, question=question)
MESSAGES_ANSWER = RowFormat(("messages", "answer"), _answered(answered_question), answered_question)
CHAT_EXPECTED = RowFormat(("chat_completion_input", "expected_answer"), _answered(_chat_expected), _chat_expected)
"""As older data sets of Llama Stack have it."""
MESSAGES_ONLY = unanswered("messages", lambda row: _asks(messages_of(row), "messages"))
CHAT_ONLY = unanswered("chat_completion_input", _chat)

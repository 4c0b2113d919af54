"""Rows of messages: a conversation; with an answer beside it, a question for an evaluation."""

from __future__ import annotations

from collections.abc import Callable

from llsflow.data.conversation import Message, Messages, Row, RowFormat, assistant, messages_of, text_of, unanswered
from llsflow.data.pairs import refuse_label


def learnable(conversation: Messages, column: str) -> Messages:
    """Return a conversation, which must hold an assistant turn that says or calls something.

    Raises:
        ValueError: there is none.
    """
    if not any(turn["role"] == "assistant" and (turn.get("content") or "tool_calls" in turn) for turn in conversation):
        raise ValueError(f"{column} has no assistant turn with text or calls: there is nothing to learn")
    return conversation


def asked(conversation: Messages, column: str) -> tuple[Messages, str | None]:
    """Return the turns before the last assistant turn, and that turn as the expected answer.

    A conversation that ends with another turn is the question as it is, and expects no certain answer.

    Raises:
        ValueError: the conversation asks nothing, or ends with a call.
    """
    last = conversation[-1]
    if last["role"] != "assistant":
        return conversation, None
    if len(conversation) == 1:
        raise ValueError(f"{column} has nothing but an assistant turn: an earlier turn must ask for it")
    if "tool_calls" in last:
        raise ValueError(
            f"{column}[{len(conversation) - 1}] calls a tool: scoring functions compare texts, so the last turn of a "
            "benchmark's row must be an answer"
        )
    return conversation[:-1], last["content"]


def _learned(row: Row) -> Messages:
    refuse_label(row, "messages+label")
    return learnable(messages_of(row), "messages")


def answered_question(row: Row) -> tuple[Messages, str]:
    """Return the whole conversation as the question, and the `answer` column.

    Raises:
        ValueError: the conversation ends with an answer already, or there is no answer.
    """
    return _asks(messages_of(row), "messages"), text_of(row, "answer", empty=True)


def _chat_expected(row: Row) -> tuple[Messages, str]:
    return _chat(row), text_of(row, "expected_answer", empty=True)


def _chat(row: Row) -> Messages:
    return _asks(messages_of(row, "chat_completion_input"), "chat_completion_input")


def _asks(conversation: Messages, column: str) -> Messages:
    if conversation[-1]["role"] == "assistant":
        raise ValueError(f"{column} ends with an assistant turn: the last turn must ask for the answer")
    return conversation


def _answered(question_of: Callable[[Row], tuple[Messages, str]]) -> Callable[[Row], Messages]:
    def training(row: Row) -> Messages:
        conversation, answer = question_of(row)
        answered: list[Message] = [assistant(answer)]
        return [*conversation, *answered]

    return training


MESSAGES = RowFormat(("messages",), _learned, lambda row: asked(messages_of(row), "messages"))
MESSAGES_ANSWER = RowFormat(("messages", "answer"), _answered(answered_question), answered_question)
CHAT_EXPECTED = RowFormat(("chat_completion_input", "expected_answer"), _answered(_chat_expected), _chat_expected)
"""As older data sets of Llama Stack have it."""
MESSAGES_ONLY = unanswered("messages", lambda row: _asks(messages_of(row), "messages"))
CHAT_ONLY = unanswered("chat_completion_input", _chat)

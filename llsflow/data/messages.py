"""Rows of `messages`: a conversation; with `answer` beside it, a question for an evaluation."""

from __future__ import annotations

from llsflow.data.conversation import Conversation, Row, RowFormat, messages_of, text_of


def training(row: Row) -> Conversation:
    """Return the conversation, which must hold an assistant turn with text.

    Raises:
        ValueError: no assistant turn, or all of them are empty.
    """
    conversation = messages_of(row)
    if not any(turn["role"] == "assistant" and turn["content"] for turn in conversation):
        raise ValueError("messages has no assistant turn with text: there is nothing to learn")
    return conversation


def question(row: Row) -> tuple[Conversation, str]:
    """Return the turns before the last assistant turn, and that turn as the expected answer.

    Raises:
        ValueError: the conversation does not end with the assistant, or asks nothing.
    """
    conversation = messages_of(row)
    if conversation[-1]["role"] != "assistant" or len(conversation) == 1:
        raise ValueError("messages must end with the assistant's answer to an earlier turn")
    return conversation[:-1], conversation[-1]["content"]


def answered_question(row: Row) -> tuple[Conversation, str]:
    """Return the whole conversation as the question, and the `answer` column.

    Raises:
        ValueError: the conversation ends with the assistant, so there is nothing to answer.
    """
    conversation = messages_of(row)
    if conversation[-1]["role"] == "assistant":
        raise ValueError("messages ends with an assistant turn: the last turn must ask for the answer")
    return conversation, text_of(row, "answer")


def _not_for_training(row: Row) -> Conversation:
    conversation, answer = answered_question(row)
    return [*conversation, {"role": "assistant", "content": answer}]


MESSAGES = RowFormat(columns=("messages",), training=training, question=question)
MESSAGES_ANSWER = RowFormat(columns=("messages", "answer"), training=_not_for_training, question=answered_question)

"""Rows of preferences: a prompt with a chosen and a rejected answer."""

from __future__ import annotations

from dataclasses import dataclass

from llsflow.data.conversation import Conversation, Message, Row, RowFormat, messages_of, text_of


@dataclass(frozen=True)
class Preference:
    """Two ways to go on from a prompt, and which is better."""

    prompt: Conversation
    chosen: Conversation
    """The better turns after the prompt; the last is the assistant's."""
    rejected: Conversation
    """The worse turns after the prompt; the last is the assistant's."""


def preference(row: Row) -> Preference:
    """Return what a row prefers; each column is a text or a list of messages.

    An answer that repeats the prompt's messages before its own is taken without them.

    Raises:
        ValueError: a column cannot be used, or there is nothing to prefer.
    """
    prompt = _turns(row, "prompt", "user")
    chosen, rejected = (_answer(row, column, prompt) for column in ("chosen", "rejected"))
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same: there is nothing to prefer")
    return Preference(prompt, chosen, rejected)


def _turns(row: Row, column: str, role: str) -> Conversation:
    if isinstance(row.get(column), list):
        return messages_of(row, column)
    return [Message(role=role, content=text_of(row, column))]  # type: ignore[typeddict-item]


def _answer(row: Row, column: str, prompt: Conversation) -> Conversation:
    turns = _turns(row, column, "assistant")
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if not turns or turns[-1]["role"] != "assistant" or not turns[-1]["content"]:
        raise ValueError(f"{column} must end with the assistant's answer to the prompt")
    return turns


def _every_turn(row: Row) -> Conversation:
    found = preference(row)
    return [*found.prompt, *found.chosen, *found.rejected]


def _not_for_supervised(_: Row) -> Conversation:
    raise ValueError(
        "prompt+chosen+rejected is for preference optimisation (recipe.kind: dpo): "
        "supervised fine-tuning takes messages, prompt+completion or question+answer"
    )


def _question(row: Row) -> tuple[Conversation, str]:
    found = preference(row)
    return [*found.prompt, *found.chosen[:-1]], found.chosen[-1]["content"]


PREFERENCES = RowFormat(
    columns=("prompt", "chosen", "rejected"),
    training=_not_for_supervised,
    question=_question,
    turns=_every_turn,
    asks=lambda row: preference(row).prompt,
)

"""Rows of preferences: a prompt with a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llsflow.data.conversation import (
    Conversation,
    Messages,
    Row,
    RowFormat,
    assistant,
    holds_messages,
    messages_or_text,
    user,
    with_parts,
)

_Turns = tuple[Messages, Messages, Messages]
"""Prompt, chosen and rejected."""

_ASKING = ("system", "developer", "user")
"""Roles of turns with which no answer begins."""


@dataclass(frozen=True)
class Preference:
    """Two ways to go on from a prompt, and which is better."""

    prompt: Messages
    chosen: Conversation
    """The prompt and the better turns after it; the last is the assistant's."""
    rejected: Conversation
    """The prompt and the worse turns after it; the last is the assistant's."""


def preference(row: Row) -> Preference:
    """Return what a row prefers; each column is a text or a list of messages.

    An answer that repeats the prompt's messages before its own is taken without them. Without a `prompt` column, or
    where `chosen` and `rejected` are whole conversations and `prompt` is the last question of both, the messages that
    they begin with alike are the prompt.

    Raises:
        ValueError: a column cannot be used, or there is nothing to prefer.
    """
    prompt, chosen, rejected = _turns(row)
    return Preference(prompt, with_parts(row, [*prompt, *chosen]), with_parts(row, [*prompt, *rejected]))


def _turns(row: Row) -> _Turns:
    prompt, chosen, rejected = _explicit(row) if row.get("prompt") is not None else _implicit(row)
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same: there is nothing to prefer")
    return prompt, chosen, rejected


def _explicit(row: Row) -> _Turns:
    prompt = messages_or_text(row, "prompt", user)
    if prompt[-1]["role"] == "assistant":
        raise ValueError("prompt ends with an assistant turn: the last turn must ask for the answer")
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    begins = [turns[: len(prompt)] == prompt for turns in (chosen, rejected)]
    asks = [turns[0]["role"] in _ASKING for turns in (chosen, rejected)]
    if any(ask and not begin for ask, begin in zip(asks, begins, strict=True)):
        return _whole(prompt, chosen, rejected, asks)
    return prompt, _answer(chosen, "chosen", prompt), _answer(rejected, "rejected", prompt)


def _whole(prompt: Messages, chosen: Messages, rejected: Messages, asks: Sequence[bool]) -> _Turns:
    """Return the turns of whole conversations, to which the prompt beside them must be the last question."""
    column = "chosen" if asks[0] else "rejected"
    if all(asks):
        found = _shared(chosen, rejected)
        asked = "\n".join(turn.get("content", "") for turn in prompt if turn["role"] == "user")
        if found[0] and found[0][-1].get("content", "").split() == asked.split():
            return found
    raise ValueError(
        f"{column} begins with a turn that asks, so it is a whole conversation, and prompt is not its last question "
        "before the answers: remove the column prompt, or the turns before the answers"
    )


def _implicit(row: Row) -> _Turns:
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    if not all(holds_messages(row.get(column)) for column in ("chosen", "rejected")):
        raise ValueError(
            "prompt is missing: chosen and rejected may hold it where both are lists of messages that begin alike"
        )
    found = _shared(chosen, rejected)
    if not found[0]:
        raise ValueError("prompt is missing, and chosen and rejected share no message at their start that could be it")
    return found


def _shared(chosen: Messages, rejected: Messages) -> _Turns:
    """Return the turns that both begin with, up to the last that asks, and what is left of each."""
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    # an answer that both begin with is part of the prompt only where somebody asks again after it
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    prompt = chosen[:shared]
    return prompt, _answer(chosen, "chosen", prompt), _answer(rejected, "rejected", prompt)


def _column(row: Row, column: str) -> Messages:
    return messages_or_text(row, column, assistant)


def _answer(turns: Messages, column: str, prompt: Messages) -> Messages:
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    last = turns[-1] if turns else None
    if last is None or last["role"] != "assistant" or not (last.get("content") or "tool_calls" in last):
        raise ValueError(f"{column} must end with the assistant's answer to the prompt")
    return turns


def _every_turn(row: Row) -> Messages:
    prompt, chosen, rejected = _turns(row)
    return [*prompt, *chosen, *rejected]


def _not_for_supervised(_: Row) -> Messages:
    raise ValueError(
        "prompt+chosen+rejected is for preference optimisation (recipe.kind: dpo): "
        "supervised fine-tuning takes messages, prompt+completion or question+answer"
    )


def _question(row: Row) -> tuple[Messages, str]:
    prompt, chosen, _ = _turns(row)
    if "tool_calls" in chosen[-1]:
        raise ValueError("chosen ends with a call: scoring functions compare texts")
    return [*prompt, *chosen[:-1]], chosen[-1]["content"]


PREFERENCES = RowFormat(
    columns=("chosen", "rejected"),
    learned=_not_for_supervised,
    asked=_question,
    turns=_every_turn,
    asks=lambda row: _turns(row)[0],
    optional=("prompt",),
)

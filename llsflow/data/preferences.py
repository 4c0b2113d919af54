"""Rows of preferences: a prompt with a chosen and a rejected answer."""

from __future__ import annotations

from dataclasses import dataclass

from llsflow.data.conversation import (
    Conversation,
    Messages,
    Row,
    RowFormat,
    assistant,
    messages_of,
    text_of,
    user,
    with_parts,
)

_Turns = tuple[Messages, Messages, Messages]
"""Prompt, chosen and rejected."""


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

    An answer that repeats the prompt's messages before its own is taken without them. Without a `prompt` column the
    messages that `chosen` and `rejected` begin with alike are the prompt.

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
    prompt = messages_of(row, "prompt") if isinstance(row.get("prompt"), list) else [user(text_of(row, "prompt"))]
    if prompt[-1]["role"] == "assistant":
        raise ValueError("prompt ends with an assistant turn: the last turn must ask for the answer")
    chosen, rejected = (_answer(_column(row, column), column, prompt) for column in ("chosen", "rejected"))
    return prompt, chosen, rejected


def _implicit(row: Row) -> _Turns:
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    if not (isinstance(row["chosen"], list) and isinstance(row["rejected"], list)):
        raise ValueError(
            "prompt is missing: chosen and rejected may hold it where both are lists of messages that begin alike"
        )
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    shared = min(shared, len(chosen) - 1, len(rejected) - 1)
    # an answer that both begin with is part of the prompt only where somebody asks again after it
    while shared and chosen[shared - 1]["role"] == "assistant":
        shared -= 1
    if not shared:
        raise ValueError("prompt is missing, and chosen and rejected share no message at their start that could be it")
    prompt = chosen[:shared]
    return prompt, _answer(chosen, "chosen", prompt), _answer(rejected, "rejected", prompt)


def _column(row: Row, column: str) -> Messages:
    if isinstance(row.get(column), list):
        return messages_of(row, column)
    return [assistant(text_of(row, column))]


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

"""Chat templates: a conversation as text, with the spans of characters that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llsflow.data.conversation import Conversation
from llsflow.schema.training import DatasetFormat

Span = tuple[int, int]
"""First character, and the one after the last."""


class ChatTokenizer(Protocol):
    """What is needed of a tokenizer: its chat template and its offsets."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Return the conversation as text (tokenize=False)."""

    def __call__(self, text: Any, **kwargs: Any) -> Any:
        """Return token ids and character offsets."""


def render(tokenizer: ChatTokenizer, conversation: Conversation, *, prompt: bool = False) -> str:
    """Return the conversation as the model's own template writes it; `prompt` opens the assistant's turn."""
    text = tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=prompt)
    return str(text)


def loss_spans(
    tokenizer: ChatTokenizer, conversation: Conversation, text: str, data_format: DatasetFormat, since: int = 0
) -> list[Span]:
    """Return the spans of `text` (the rendered conversation) that the assistant wrote, from turn `since` on.

    An assistant turn's span is what the rendering gains by that turn: from the end of the rendering of
    everything before it, with the assistant's turn opened, to the end of the rendering with it. So it
    holds the answer and the mark that ends it, whatever the template looks like.

    Raises:
        ValueError: the template rewrites earlier turns, so that no prefix can be found.
    """
    turns = [number for number, turn in enumerate(conversation) if turn["role"] == "assistant" and number >= since]
    if data_format is DatasetFormat.INSTRUCT:
        turns = turns[-1:]
    spans: list[Span] = []
    for number in turns:
        before = render(tokenizer, conversation[:number], prompt=True)
        until = text if number == len(conversation) - 1 else render(tokenizer, conversation[: number + 1])
        if not (until.startswith(before) and text.startswith(until)):
            raise ValueError(
                f"the chat template writes turn {number} differently when more turns follow, so the tokens "
                "under loss cannot be told: use data_format: instruct with one answer a row, or a template "
                "that only appends (model.chat_template)"
            )
        spans.append((len(before), len(until)))
    return spans


def mask_of(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Return for each token whether it begins inside a span; both are in order of position."""
    mask = [False] * len(offsets)
    position = 0
    for start, end in spans:
        while position < len(offsets) and offsets[position][0] < start:
            position += 1
        while position < len(offsets) and offsets[position][0] < end:
            mask[position] = True
            position += 1
    return mask

"""Reasoning that is part of an answer's text: the marks around it, and the answer without it."""

from __future__ import annotations

THOUGHTS = (
    *(("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")),
    *(("<thought>", "</thought>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]")),
    *(("<|channel>thought", "<channel|>"), ("<|START_THINKING|>", "<|END_THINKING|>")),
)
"""What models write around the reasoning before an answer."""


def without_thoughts(text: str) -> str:
    """Return an answer without the reasoning before it; reasoning that is never closed has no answer after it."""
    for mark, close in THOUGHTS:
        if close in text:
            # a chat template may have opened the reasoning in the prompt: then the text has its end alone
            text = text.rsplit(close, 1)[1].lstrip()
        elif text.lstrip().startswith(mark):
            return ""
    return text

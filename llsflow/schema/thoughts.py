"""Reasoning that is part of an answer's text: the marks around it, and the answer without it."""

from __future__ import annotations

import re
from collections.abc import Iterator

THOUGHTS = (
    *(("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")),
    *(("<thought>", "</thought>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]")),
    *(("<|channel>thought", "<channel|>"), ("<|START_THINKING|>", "<|END_THINKING|>")),
)
"""What models write around the reasoning before an answer."""

# marks that are met in answers, and that no chat template needs to be searched for
_IN_ANSWERS = (
    *THOUGHTS,
    *(("◁think▷", "◁/think▷"), ("<analysis>", "</analysis>"), ("<scratchpad>", "</scratchpad>")),
)
_CLOSE = {mark.lower(): close.lower() for mark, close in _IN_ANSWERS}
_MARKS = re.compile("|".join(re.escape(mark) for marks in _IN_ANSWERS for mark in marks), re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """Return an answer without the reasoning in it; reasoning that is never closed has no answer after it.

    A mark's case does not matter; one in backticks is text.
    """
    kept: list[str] = []  # what stands outside of the reasoning
    done = 0  # everything before it is either kept or taken out
    close: str | None = None  # what ends the reasoning that is open
    nested = 0  # marks that opened reasoning inside of reasoning
    for found in _marks(text):
        mark = found[0].lower()
        if close is not None:
            if mark == close:
                close, done = None, found.end()
            elif _CLOSE.get(mark) == close:
                nested += 1
        elif mark in _CLOSE:
            kept.append(text[done : found.start()])
            close, done, nested = _CLOSE[mark], found.end(), 0
        else:
            # the end alone: of reasoning that had some inside, or that a chat template opened in the prompt
            kept = kept if nested else []
            nested, done = max(nested - 1, 0), found.end()
    if not done:
        return text
    if close is None:
        kept.append(text[done:])
    answer = "".join(kept)
    if not "".join(kept[:-1]).strip():
        answer = answer.lstrip()
    return answer if close is None and text[done:].strip() else answer.rstrip()


def _marks(text: str) -> Iterator[re.Match[str]]:
    for found in _MARKS.finditer(text):
        if not text[found.start() - 1 : found.start()] == "`" == text[found.end() : found.end() + 1]:
            yield found

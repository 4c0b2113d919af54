"""Long texts split into passages, at the borders that readers see."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

HEADING_CHARACTERS = 80
"""Longest paragraph without a full stop that is taken for a heading."""
_MOST_HEADINGS = 3
"""More of them one after another are a list."""
_MOST_MARKS = 32
"""Characters that may join those before them, as accents do, where a word is cut."""

# each finds the last place for a cut, behind something that is no blank; what lies ahead is seen and not taken
_PARAGRAPH = re.compile(r"(?s).*\S(?=[^\S\n]*\n[^\S\n]*\n)")
_LINE = re.compile(r"(?s).*\S(?=[^\S\n]*\n)")
_SENTENCE = re.compile(r"(?s).*(?:[.!?…][\"'”’»)\]]*(?=\s)|[。！？][」』”’）]*(?=.))")
_WORD = re.compile(r"(?s).*\S(?=\s)")
_VISIBLE = re.compile(r"\S")


def split(text: str, most_characters: int) -> list[str]:
    """Return a text in passages, each as long as the limit lets it be.

    They end at a paragraph's end; where none is near, at a line's, a sentence's, a word's, and within a word at last.
    Headings begin a passage rather than end one. Nothing but blanks is lost. The time grows with the text's length.
    """
    text = text.rstrip()  # blanks at the end count for no passage
    whole = text.lstrip()
    if 0 < len(whole) <= most_characters < len(text):
        return [whole]  # its indentation has no room
    passages: list[str] = []
    at = 0
    while (start := _start(text, at, most_characters)) < len(text):
        at = _end(text, start, most_characters)
        passages.append(text[start:at].rstrip())
    return passages


def _start(text: str, at: int, most: int) -> int:
    """Return where the next passage begins: what can be seen, with its indentation."""
    visible = _VISIBLE.search(text, at)
    if visible is None:
        return len(text)
    line = text.rfind("\n", at, visible.start()) + 1
    indented = line > at or at == 0
    return line if indented and 2 * (visible.start() - line) < most else visible.start()


def _end(text: str, start: int, most: int) -> int:
    if len(text) - start <= most:
        return len(text)
    headings = start
    for pattern, ahead, separator, is_heading in _LEVELS:
        if found := pattern.match(text, start, start + most + ahead):
            end = _before_headings(text, start, found.end(), separator, is_heading)
            if end > headings:
                return end
            # up to here there are only headings: an end must have some of what follows
            headings = max(headings, found.end())
    return _within_word(text, start, start + most)


def _before_headings(text: str, start: int, end: int, separator: str, is_heading: Callable[[str], bool]) -> int:
    """Return an end before the headings that a passage would end with; the start, where it has nothing else."""
    before = end
    for _ in range(_MOST_HEADINGS):
        border = text.rfind(separator, start, before)
        if not is_heading(text[max(border, start) : before].strip()):
            return before
        if border < 0:
            return start
        before = start + len(text[start:border].rstrip())
        if before == start:
            return start
    return end


def _within_word(text: str, start: int, end: int) -> int:
    """Return the end, or one a little before it that takes no character apart."""
    for back in range(min(_MOST_MARKS, end - start - 1)):
        if not _belongs_before(text, end - back):
            return end - back
    return end


def _belongs_before(text: str, at: int) -> bool:
    """Return whether a character is part of the one before it: a mark, joined to it, or the second half of a pair."""
    one = text[at]
    return (
        unicodedata.category(one)[0] == "M"
        or "\u200d" in (one, text[at - 1])
        or "\U0001f3fb" <= one <= "\U0001f3ff"
        or "\udc00" <= one <= "\udfff"
    )


def _stands_alone(block: str) -> bool:
    if "\n" in block or len(block) > HEADING_CHARACTERS:
        return False
    return _is_marked(block) or block[-1:] not in ".!?…:;,。！？"


def _is_marked(block: str) -> bool:
    return block.startswith("#") and "\n" not in block and len(block) <= HEADING_CHARACTERS


def _never(_: str) -> bool:
    return False


_LEVELS: tuple[tuple[re.Pattern[str], int, str, Callable[[str], bool]], ...] = (
    (_PARAGRAPH, 2, "\n\n", _stands_alone),
    (_LINE, 1, "\n", _is_marked),
    (_SENTENCE, 1, "\n", _never),
    (_WORD, 1, "\n", _never),
)
"""Borders, the best first: where, how far ahead they are seen, what parts the blocks before, which are headings."""

"""Words and sentences of a text, counted by rules that need no data of their own."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
# "well-known", "DON'T", "U.S." and "AND/OR" are one word each
_JOINED = re.compile(r"[^\W_]+(?:[-'’./&_][^\W_]+)*")

_NEVER_LAST = "mr mrs ms dr prof st rev gen col capt lt sgt hon gov sen vs e.g i.e cf u.s u.k"
_TITLES = frozenset(_NEVER_LAST.split())
_MAY_BE_LAST = (
    "etc al approx vol fig est inc ltd co corp dept jr sr a.m p.m ph.d m.d "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_ABBREVIATIONS = frozenset(_MAY_BE_LAST.split())
_LONGEST_WORD = 40

# a mark begins where none stands before it, so that a long run of them is looked at once
_END = re.compile(
    r"""(?<![.!?…])(?P<marks>[.!?…]++)(?P<close>["'”’»)\]*_]*+)(?=\s|$)"""
    r"""|[。！？।۔؟]++["'”’»)\]」』]*+"""
)
_LAST_WORD = re.compile(r"[\w.]*\w$")
_SOLID = re.compile(r"\S")


def count_words(text: str) -> int:
    r"""Return how many runs of letters, digits and underscores there are, as the paper's `\w+` counts them."""
    return sum(1 for _ in _WORD.finditer(text))


def count_capital_words(text: str) -> int:
    """Return how many words have no small letter; joined by hyphens, apostrophes, dots or slashes they are one."""
    return sum(word.isupper() for word in _JOINED.findall(text))


def count_sentences(text: str) -> int:
    """Return how many sentences a text has; a line break alone ends none.

    A sentence ends at full stops, exclamation or question marks before white space (closing quotes may stand between),
    and at the marks of Chinese, Japanese, Hindi, Arabic and Urdu wherever they stand. None ends at a single full stop
    after a title ("Dr."), a single capital ("J. Smith") or the number of a list ("1."), nor after another abbreviation
    before anything but a capital; nor at an ellipsis, or a mark within quotes, before a small letter.

    The paper counts with NLTK's trained Punkt model, whose data would have to be fetched; its rules are these, its
    list of abbreviations is longer.
    """
    count, start = 0, 0
    for match in _END.finditer(text):
        if _ends(text, start, match):
            count += _says_something(text[start : match.end()])
            start = match.end()
    return count + _says_something(text[start:])


def _says_something(text: str) -> bool:
    return any(map(str.isalnum, text))


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    after = _SOLID.search(text, match.end())
    if match["marks"] is None or after is None:
        return True
    if match["marks"] != ".":
        goes_on = match["close"] or match["marks"].strip("!?") in ("...", "…")
        return not (goes_on and after.group().islower())
    before = text[max(start, match.start() - _LONGEST_WORD) : match.start()]
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    if word.lower() in _TITLES or (len(word) == 1 and word.isupper() and word != "I"):
        return False
    if word.isdigit() and before.strip() == word:
        return False
    return word.lower() not in _ABBREVIATIONS or after.group().isupper()

"""basic::docvqa."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llsflow.scorers.base import (
    EXPECTED,
    Params,
    Scorer,
    ScoreRow,
    as_text,
    composed,
    generated_text,
    json_column,
    unscored,
)

MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""Punctuation, in the order in which it is taken out."""
DROPPED = frozenset({"a", "an", "the", "to", "in", "from", "by"})
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {**{word: str(value) for value, word in enumerate(_DIGITS)}, "none": "0"}
_ORDINALS = {"1st": "first", "2nd": "second", "3rd": "third"}

# words whose apostrophe may be left out, by what stands after it
_BEFORE_NT = "ai are ca could did does do had has have is might must need ought sha should was were wo would"
_BEFORE_VE = "could might must not should they we what where who would you"
_BEFORE_D = "he how it somebody someone something there they where who you"
_BEFORE_LL = "how it somebody someone something they what who why you"
_BEFORE_RE = "there they what why you"
_BEFORE_S = "he how somebody someone that there what when where who why"
_BEFORE_DVE = "he it she somebody someone something there they we who you"
_BEFORE_NTVE = "could had might should would"


def _contractions() -> dict[str, str]:
    ends = {
        "n't": _BEFORE_NT,
        "'ve": _BEFORE_VE,
        "'d": _BEFORE_D,
        "'ll": _BEFORE_LL,
        "'re": _BEFORE_RE,
        "'s": _BEFORE_S,
    }
    found = {word + end.replace("'", ""): word + end for end, words in ends.items() for word in words.split()}
    double = [(word, "'d", "'ve") for word in _BEFORE_DVE.split()]
    double += [(word, "n't", "'ve") for word in _BEFORE_NTVE.split()]
    for word, first, second in double:
        bare = first.replace("'", "")
        found |= {word + bare + second: word + first + second, word + first + "ve": word + first + second}
    return found | {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all"}


CONTRACTIONS = _contractions()

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


class DocVqa(Scorer):
    """1.0 when the generated answer, both normalised, is one of the accepted answers; else 0.0.

    `expected_answer` is a JSON list of accepted answers (a list itself counts as well). Normalising, in this order:
    letters and accents are composed (NFC), punctuation goes (a mark between two words becomes a space, unless the text
    has a blank beside that mark or a comma within a number), full stops go unless a digit follows, letters become
    small, number words up to ten become digits, "a, an, the, to, in, from, by" are dropped, and contractions get their
    apostrophe back.

    Source: Antol et al. 2015 (VQA, arXiv:1505.00468), the answer processing of its evaluation code, with the further
    dropped words that the Llama Stack has.
    """

    id = "basic::docvqa"

    def prepare(self, params: Params | None = None) -> ScoreRow:
        """Return the function that scores one row."""
        return _score


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        generated = normalise(generated_text(row, EXPECTED))
        accepted = json_column(row, EXPECTED)
    except ValueError as error:
        return unscored(str(error))
    if not isinstance(accepted, list) or not accepted:
        return unscored(f"expected_answer is {as_text(accepted)[:40]}: a JSON list of accepted answers is needed")
    return {"score": 1.0 if generated in {normalise(as_text(answer)) for answer in accepted} else 0.0}


def normalise(text: str) -> str:
    """Return an answer as it is compared."""
    text = composed(text)
    for mark in MARKS:
        loose = f"{mark} " in text or f" {mark}" in text or _COMMA_IN_NUMBER.search(text)
        text = _FULL_STOP.sub("", text.replace(mark, "" if loose else " "))
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    kept = (_ORDINALS.get(word, word) for word in words if word not in DROPPED)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)

"""Mathematical answers as text: written in one way before they are compared, and numbers read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from llsflow.scorers.base import composed

_SPACES = re.compile(r"(?<!\\)\\(?:[,;:!> ]|quad\b|qquad\b|thinspace\b|hspace\*?\{[^{}]*\})|~")
_NOTHING = re.compile(r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z])")
_WORDS = r"\\(?:text|mathrm|textrm|mbox|operatorname|textbf|mathbf)"
_UNIT = re.compile(rf"(?<=[\d}})\]])\s*{_WORDS}\s*\{{[^{{}}]*\}}\s*(?:\^\s*\{{?-?\d+\}}?)?\s*$")
_PLAIN_UNIT = re.compile(r"(?<=\d)\s*(?:\\?%|percent(?:age)?|pct|\^\s*\{?\\circ\}?|°|\\degree(?:s)?)\s*$")
_UNWRAP = re.compile(rf"{_WORDS}\s*\{{([^{{}}]*)\}}")
_REPLACE = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\?\$|[€£¥]"), ""),
    (re.compile(r"−"), "-"),
    (re.compile(r"\\(?:le|ge)q?(?![A-Za-z])"), lambda found: rf"\{found[0][1:3]}q "),
)
_THOUSANDS = re.compile(r"(?<![\d.])[1-9]\d{0,2}(?:(?:,|\{,\}|[ \u00a0\u202f])\d{3})+(?![\d,])")
_MIXED = re.compile(r"(?<![\d.}])(-?)\s*(\d+)\s+(?:(\d+)\s*/\s*(\d+)|\\frac\s*\{(\d+)\}\s*\{(\d+)\})(?!\s*[\d/])")
_EXPONENT = re.compile(r"(?<![A-Za-z])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![A-Za-z\d])")
_FRACTION = re.compile(
    r"(-?)\s*(?:\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}|\\frac\s*(\d)\s*(\d)|(\d+)\s*/\s*(\d+))"
)
_DECIMAL_COMMA = re.compile(r"([+-]?0),(\d+)")
"""Behind a 0 no comma parts thousands; elsewhere 1,2 may be two numbers."""
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")

MOST_CHARACTERS = 1000
"""Longer answers are no numbers or terms that anybody wrote."""


def plain(text: str) -> str:
    r"""Return an answer in one plain form: without signs of money, units, LaTeX's spaces and marks of thousands.

    A mixed number `2 1/2`, whose fraction is below 1, is a sum, and `4.2e3` a power of ten.

    Source: the normalisation of Lewkowycz et al. 2022 (Minerva, arXiv:2206.14858, appendix); the rules are our own.
    """
    text = _NOTHING.sub("", _SPACES.sub(" ", composed(text))).strip().strip("$").strip().rstrip(".").strip()
    for pattern, replacement in _REPLACE:
        text = pattern.sub(replacement, text)
    text = _PLAIN_UNIT.sub("", _UNIT.sub("", text))
    previous = None
    while previous != text:
        previous, text = text, _UNWRAP.sub(r"\1", text)
    if not text.startswith(("(", "[", "{", "\\{")):  # (1,234) is a pair, 1,234 a number
        text = _THOUSANDS.sub(lambda found: re.sub(r"[^\d]", "", found.group()), text)
    text = _MIXED.sub(_sum, text)
    text = _EXPONENT.sub(r"\1\\cdot 10^{\2}", text)
    return re.sub(r"\s+", " ", text).strip()


def _sum(found: re.Match[str]) -> str:
    sign, whole, *parts = found.groups()
    top, bottom = (part for part in parts if part)
    if int(top) >= int(bottom):  # 11 6/6 is no mixed number
        return found.group()
    return rf"{sign}({whole}+\frac{{{top}}}{{{bottom}}})"


def squeezed(text: str) -> str:
    """Return a text without the white space beside signs, where it means nothing; `3 4` is not `34`."""
    return re.sub(r"(?<=[^\w\s])\s+|\s+(?=[^\w\s])", "", text)


def is_word(text: str) -> bool:
    """Return whether an answer is words, which are compared as they are: `no` is not `on`."""
    return re.fullmatch(r"[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*", text) is not None


def number(text: str) -> Fraction | None:
    """Return the exact value of a decimal or a fraction of whole numbers; None: it is none."""
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        return None
    if comma := _DECIMAL_COMMA.fullmatch(text):
        return Fraction(f"{comma[1]}.{comma[2]}")
    if _DECIMAL.fullmatch(text):
        return Fraction(text.rstrip(".") if not text.startswith(".") else f"0{text}")
    found = _FRACTION.fullmatch(text)
    if found is None:
        return None
    sign, *parts = found.groups()
    top, bottom = (int(part) for part in parts if part is not None)
    return None if bottom == 0 else Fraction(top, bottom) * (-1 if sign else 1)

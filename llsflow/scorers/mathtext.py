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
_WORD_UNIT = re.compile(r"(?<=\d)\s+(?!(?:and|or|mod|times|plus|minus|over)\b)([a-z]{3,}(?:\s[a-z]{2,})?)\s*$")
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

_INFINITY = re.compile(r"(?<![A-Za-z\\])(?:infinity|inf)(?![A-Za-z])", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:\\approx(?![A-Za-z])|≈|(?:approximately|about|roughly)\b)\s*", re.IGNORECASE)
_SCALES = {**{"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}}
_SCALED = re.compile(
    rf"(?<![\d.,])(\d+(?:\.\d+)?)\s*(?:{_WORDS}\s*\{{\s*)?({'|'.join(_SCALES)})(?![a-z])(\s*\}})?", re.IGNORECASE
)
_BASED = re.compile(r"\d[\dA-Fa-f]*\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))")
_CLOCK = re.compile(r"\d\s*[ap]\.?\s*m\b\.?", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(?:\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{2,4})(?!\d)")

MOST_CHARACTERS = 1000
"""Longer answers are no numbers or terms that anybody wrote."""


def plain(text: str) -> str:
    r"""Return an answer in one plain form: without signs of money, units, LaTeX's spaces and marks of thousands.

    A mixed number `2 1/2`, whose fraction is below 1, is a sum, and `4.2e3` a power of ten.

    Source: the normalisation of Lewkowycz et al. 2022 (Minerva, arXiv:2206.14858, appendix); the rules are our own.
    """
    text = _NOTHING.sub("", _SPACES.sub(" ", composed(text))).replace(r"\$", "").strip().strip("$").strip()
    text = _INFINITY.sub(r"\\infty", _ABOUT.sub("", text.rstrip(".").strip()))
    text = _SCALED.sub(_scaled, text)
    for pattern, replacement in _REPLACE:
        text = pattern.sub(replacement, text)
    text = _PLAIN_UNIT.sub("", _WORD_UNIT.sub("", _UNIT.sub("", text)))
    previous = None
    while previous != text:
        previous, text = text, _UNWRAP.sub(r"\1", text)
    if not text.startswith(("(", "[", "{", "\\{")):  # (1,234) is a pair, 1,234 a number
        text = _THOUSANDS.sub(lambda found: re.sub(r"[^\d]", "", found.group()), text)
    text = _MIXED.sub(_sum, text)
    text = _EXPONENT.sub(r"\1\\cdot 10^{\2}", text)
    return re.sub(r"\s+", " ", text).strip()


def _scaled(found: re.Match[str]) -> str:
    value = Fraction(found[1]) * _SCALES[found[2].lower()]
    return str(value) if value.denominator == 1 else found.group()


def unit(text: str) -> str | None:
    """Return the unit behind an answer in one form, or the sign of money before it; None: there is none."""
    text = _NOTHING.sub("", _SPACES.sub(" ", composed(text))).strip().strip(".")
    if text and text[0] in _MONEY:
        return text[0]
    if text.startswith(r"\$") or (text.startswith("$") and text.count("$") == 1):  # two of them are a formula's
        return "dollar"
    text = text.replace("$", "").strip()
    if found := _PLAIN_UNIT.search(text):
        return "percent" if found.group().strip(" \\").lower()[:1] in ("%", "p") else "degree"
    text = _SCALED.sub(_scaled, text)
    if (found := _UNIT.search(text) or _WORD_UNIT.search(text)) is None:
        return None
    word = re.sub(r"[^a-z0-9/^]", "", _UNWRAP.sub(r"\1", found.group()).lower())
    return _UNITS.get(word, word.removesuffix("s")) or None


_MONEY = "€£¥"
_UNITS = {"degrees": "degree", "percent": "percent", "dollars": "dollar"}


def literal(text: str) -> str | None:
    """Return an answer that is compared as it is written: a number of a base, a time, a date; None: it is none."""
    text = _SPACES.sub(" ", composed(text)).strip().strip("$").strip()
    previous = None
    while previous != text:
        previous, text = text, _UNWRAP.sub(r"\1", text)
    if _BASED.fullmatch(text) or _CLOCK.search(text) or _DATE.search(text):
        return re.sub(r"[\s.{}]", "", text).lower()
    return None


def is_value(text: str) -> bool:
    """Return whether a text is nothing but a value: a number, or what is in signs of a formula."""
    text = text.strip()
    if not text or "\n" in text or len(text) > MOST_CHARACTERS:
        return False
    whole = (text.startswith("$") and text.endswith("$") and len(text) > 2) or re.fullmatch(r"\\\(.*\\\)", text)
    return bool(whole) or number(plain(text)) is not None


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

"""The written form of a mathematical answer -> one plain form, and a tree that can be evaluated.

Nothing here runs code: an answer comes from a model, so it is read by a small grammar and never by `eval`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]
"""("num", "1.5"), ("sym", "x"), ("fn", "sin", tree), or an operator of _OPERATORS with its trees."""

MAX_LENGTH = 400
MAX_DEPTH = 40
"""Longer or deeper answers are compared as text only."""
_MAX_BITS = 4096

_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan")
FUNCTIONS = (*_TRIGONOMETRIC, "sqrt", "ln", "log", "exp")
CONSTANTS = ("pi", "infty")


class UnreadableError(ValueError):
    """The text is not in the grammar."""


_UNIT = re.compile(r"(?<=[\d})°])\s*\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*\}\s*(?:\^\{?\d\}?)?\s*$")
_UNWRAP = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_REPLACE = (
    (re.compile(r"\\(?:left|right|big|Big|bigg|Bigg)(?![A-Za-z])"), ""),
    (re.compile(r"\\[!,;:> ]|~|\\q?quad(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\^\{?\\circ\}?|°|\\degree|\\?%|\\?\$"), ""),
    (re.compile(r"\\(?:cdot|times)(?![A-Za-z])|[×·]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|÷"), "/"),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"π"), r"\\pi "),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
    (re.compile(r"_(\w)"), r"_{\1}"),
    (re.compile(r"√\s*(\d+|\w)"), r"\\sqrt{\1}"),
)
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d,])")
_SIDE = re.compile(r"^\s*\\?[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?\s*=(?!=)")


def normalise(text: str) -> str:
    """Return the answer in one plain form: no dollar signs, units, spaces, `\\left`, thousands commas, `x =`.

    Source: the normalisation step of Lewkowycz et al. 2022 (Minerva, arXiv:2206.14858, appendix); the rules
    are written here.
    """
    text = text.strip().rstrip(".").strip()
    text = _UNIT.sub("", text.strip("$").strip())
    previous = None
    while previous != text:
        previous = text
        text = _UNWRAP.sub(r"\1", text)
    for pattern, replacement in _REPLACE:
        text = pattern.sub(replacement, text)
    if not text.startswith(("(", "[", "{", "\\{")):  # (1,234) is a pair, 1,234 a number
        text = _THOUSANDS.sub(lambda match: re.sub(r"[^\d]", "", match.group()), text)
    text = _SIDE.sub("", text)
    # a space only matters where it ends a command: "\pi r" is not "\pir"
    text = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", r"\1{}", text.strip())
    text = re.sub(r"\s+", "", text) if re.search(r"[\\\d^=+*/]", text) else re.sub(r"\s+", " ", text)
    return text.rstrip(".")


def split_list(text: str) -> tuple[str, list[str], str]:
    """Return the opening bracket, the members and the closing bracket of a tuple, interval, set or list.

    Brackets around one member are part of that member: `(x+1)` gives no brackets and one member.
    """
    opening, closing, inner = "", "", text
    for left, right in (("\\{", "\\}"), ("(", ")"), ("(", "]"), ("[", ")"), ("[", "]")):
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left + right):
            opening, closing, inner = left, right, text[len(left) : len(text) - len(right)]
            break
    members, depth, start = [], 0, 0
    for i, letter in enumerate(inner):
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:  # "(1,2),(3,4)": the outer brackets are not a pair
            opening, closing, inner = "", "", text
            return ("", _split_flat(text), "")
        if letter == "," and depth == 0:
            members.append(inner[start:i])
            start = i + 1
    members.append(inner[start:])
    if len(members) == 1:
        return "", [text], ""
    return opening, members, closing


def _split_flat(text: str) -> list[str]:
    members, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            members.append(text[start:i])
            start = i + 1
    return [*members, text[start:]]


_SIGN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+|\\[A-Za-z]+|[A-Za-z]+|[-+*/^(){}\[\]_|])")


def parse(text: str) -> Tree:
    """Return the tree of a normalised expression.

    Raises:
        UnreadableError: it is not an expression, or longer or deeper than the limits.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError(f"over {MAX_LENGTH} characters")
    signs, position = [], 0
    while position < len(text):
        match = _SIGN.match(text, position)
        if match is None:
            raise UnreadableError(f"unknown sign at {text[position : position + 10]!r}")
        signs.extend(_letters(match.group(1)))
        position = match.end()
    if signs and all(sign.isalpha() and sign not in CONSTANTS for sign in signs) and len(signs) > 1:
        raise UnreadableError("a word")  # "no" is not n·o, which would equal "on"
    reader = _Reader(signs)
    tree = reader.sum(0)
    if reader.here < len(signs):
        raise UnreadableError(f"unexpected {signs[reader.here]!r}")
    return tree


def _letters(sign: str) -> list[str]:
    if sign.startswith("\\"):
        return [sign[1:] if sign[1:] in (*FUNCTIONS, *CONSTANTS) else sign]
    if not sign.isalpha() or sign in FUNCTIONS or sign in CONSTANTS:
        return [sign]
    if len(sign) > 2:
        raise UnreadableError(f"the word {sign!r}")
    return list(sign)


class _Reader:
    """Recursive descent over the signs; `depth` counts nested brackets."""

    def __init__(self, signs: list[str]) -> None:
        self.signs, self.here = signs, 0

    def peek(self) -> str:
        return self.signs[self.here] if self.here < len(self.signs) else ""

    def take(self, wanted: str | None = None) -> str:
        sign = self.peek()
        if not sign or (wanted is not None and sign != wanted):
            raise UnreadableError(f"expected {wanted or 'more'}, found {sign or 'the end'}")
        self.here += 1
        return sign

    def sum(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise UnreadableError(f"nested over {MAX_DEPTH} deep")
        tree = self.product(depth)
        while self.peek() in ("+", "-"):
            kind = "add" if self.take() == "+" else "sub"
            tree = (kind, tree, self.product(depth))
        return tree

    def product(self, depth: int) -> Tree:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        tree = self.power(depth)
        while True:
            sign = self.peek()
            if sign in ("*", "/"):
                self.take()
                tree = ("mul" if sign == "*" else "div", tree, self.signed(depth))
            elif sign and sign not in "+-)}]|^_":
                right = self.power(depth)
                mixed = _is_whole(tree) and right[0] == "div" and _is_whole(right[1]) and _is_whole(right[2])
                tree = ("add" if mixed else "mul", tree, right)  # 3\frac{1}{2} is three and a half
            else:
                return ("neg", tree) if negative else tree

    def signed(self, depth: int) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("neg", self.power(depth))
        return self.power(depth)

    def power(self, depth: int) -> Tree:
        base = self.atom(depth)
        if self.peek() == "^":
            self.take()
            return ("pow", base, self.argument(depth))
        return base

    def argument(self, depth: int) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("neg", self.atom(depth + 1))
        return self.atom(depth + 1)

    def group(self, closing: str, depth: int) -> Tree:
        tree = self.sum(depth + 1)
        self.take(closing)
        return tree

    def atom(self, depth: int) -> Tree:
        sign = self.take()
        if sign[0].isdigit() or sign[0] == ".":
            return ("num", sign)
        if sign in ("(", "{", "[", "|"):
            if sign == "{" and self.peek() == "}":  # the empty group that ends a command
                self.take()
                return self.atom(depth)
            inner = self.group({"(": ")", "{": "}", "[": "]", "|": "|"}[sign], depth)
            return ("abs", inner) if sign == "|" else inner
        if sign == "\\frac":
            return ("div", self.argument(depth), self.argument(depth))
        if sign in FUNCTIONS:
            return self.function(sign, depth)
        if sign.isalpha() or sign.startswith("\\"):
            return ("sym", sign + self.subscript())
        raise UnreadableError(f"unexpected {sign!r}")

    def function(self, name: str, depth: int) -> Tree:
        if name == "sqrt" and self.peek() == "[":
            self.take()
            degree = self.group("]", depth)
            return ("pow", self.argument(depth), ("div", ("num", "1"), degree))
        exponent = None
        if self.peek() == "^":
            self.take()
            exponent = self.argument(depth)
        base = None
        if name == "log" and self.peek() == "_":
            self.take()
            base = self.argument(depth)
        tree: Tree = ("fn", "ln" if base else name, self.power(depth + 1))
        if base:
            tree = ("div", tree, ("fn", "ln", base))
        return ("pow", tree, exponent) if exponent else tree

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        if self.peek() != "{":
            return "_" + self.take()
        self.take()
        name = ""
        while self.peek() != "}":
            name += self.take()
        self.take()
        return "_" + name


def _is_whole(tree: Tree | str) -> bool:
    return isinstance(tree, tuple) and tree[0] == "num" and str(tree[1]).isdigit()


def rational(tree: Tree) -> Fraction | None:
    """Return the exact value of a tree of numbers; None: it is no rational number, or too large."""
    kind = tree[0]
    if kind == "num":
        text = str(tree[1])
        return Fraction(text if text[-1] != "." else text[:-1])
    if kind in ("sym", "fn"):
        return None
    values = [rational(part) for part in tree[1:] if isinstance(part, tuple)]
    numbers = [value for value in values if value is not None and _small(value)]
    if len(numbers) != len(values):
        return None
    if kind == "pow":
        return _power(numbers[0], numbers[1])
    if kind == "div":
        return numbers[0] / numbers[1] if numbers[1] else None
    if len(numbers) == 1:
        return abs(numbers[0]) if kind == "abs" else -numbers[0]
    left, right = numbers
    return {"add": left + right, "sub": left - right, "mul": left * right}[kind]


def _small(value: Fraction) -> bool:
    return value.numerator.bit_length() + value.denominator.bit_length() <= _MAX_BITS


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1 or abs(exponent) > 512 or (base == 0 and exponent < 0):
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base ** int(exponent) if bits * abs(int(exponent)) <= _MAX_BITS else None

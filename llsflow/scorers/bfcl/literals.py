"""Values of Java and JavaScript: the source of an argument, and what it stands for where it is a literal.

Java: `true`, `1`, `1L`, `1.5f`, `1.5`, `"text"`, `'c'`, `new int[]{…}`, `{…}`, `new ArrayList<>(Arrays.asList(…))`,
`Arrays.asList(…)`, `List.of(…)`, `Set.of(…)`, `Map.of(key, value, …)`, empty collections and those filled by
`{{ add(…); }}` and `{{ put(key, value); }}`. JavaScript: `true`, `1`, `1n`, `1.5`, `"text"`, `'text'`, a template
without `${`, `[…]`, `{key: value}`, `new Array(…)`, `new Map([[key, value], …])`, `new Set([…])`. A name such as
`user` or `Status.OPEN`, and `null`, stands for itself.
"""

from __future__ import annotations

import re
from typing import Any

OPENING, CLOSING = "([{", ")]}"
DEEPEST = 50
"""Values within values that are read."""


_GENERIC = re.compile(r"<[\w\s,.?<>\[\]]{0,200}>(?=\s*[({])")
"""The type arguments of `new HashMap<String, Object>()`: a comma in them separates nothing."""


class UnknownValueError(Exception):
    """A value is code that is no literal, so that nothing can be said of it; the text names it."""


class Source(str):
    """The source of a value, in Java or JavaScript."""

    __slots__ = ()


def split(text: str, separator: str = ",") -> list[str]:
    """Return the parts between separators that stand in no bracket and no quotes; no parts for white space.

    Raises:
        ValueError: brackets or quotes are left open.
    """
    parts, begin, quote, open_brackets = [], 0, "", []
    position = 0
    while position < len(text):
        letter = text[position]
        if quote:
            position += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "\"'`":
            quote = letter
        elif letter in OPENING:
            open_brackets.append(CLOSING[OPENING.index(letter)])
        elif letter in CLOSING:
            if not open_brackets or open_brackets.pop() != letter:
                raise ValueError(f"a {letter!r} closes nothing")
        elif letter == "<" and (generic := _GENERIC.match(text, position)):
            position = generic.end() - 1
        elif letter == separator and not open_brackets:
            parts.append(text[begin:position])
            begin = position + 1
        position += 1
    if quote or open_brackets:
        raise ValueError(f"a {quote or open_brackets[-1]!r} is missing")
    return [*parts, text[begin:]] if parts or text.strip() else []


_NAME = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*(?:\.class)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+[lLn]?", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFdD]?", re.ASCII)
_TYPE = r"[\w.]+(?:\s*<[^(){}]*>)?"
_COLLECTIONS = re.compile(
    rf"(?:new\s+{_TYPE}\s*(?:\[\s*\]\s*)+(?P<array>\{{.*\}})"
    r"|(?:Arrays\s*\.\s*asList|(?:List|Set)\s*\.\s*of)\s*\((?P<items>.*)\)"
    r"|Map\s*\.\s*of\s*\((?P<pairs>.*)\)"
    rf"|new\s+(?P<type>{_TYPE})\s*\((?P<inner>.*?)\)\s*(?:\{{\s*\{{(?P<filled>.*)\}}\s*\}}|\{{\s*\}})?)",
    re.DOTALL,
)
_FILLING = re.compile(r"\s*(?P<how>add|put|push)\s*\((?P<values>.*)\)\s*", re.DOTALL)


def value_of(source: str, language: str, depth: int = 0) -> Any:
    """Return the value of a literal; a name stands for itself, as a text.

    Raises:
        UnknownValueError: it is other code.
        ValueError: brackets or quotes are left open.
    """
    text = source.strip()
    if depth > DEEPEST:
        raise UnknownValueError(f"{text[:40]!r} lies too deep")
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text.rstrip("lLn")) if len(text) < 400 else text
    if _FLOAT.fullmatch(text):
        return float(text.rstrip("fFdD"))
    if text[:1] in ("'", '"', "`"):
        return _quoted(text)
    if _NAME.fullmatch(text):
        return text
    if text[:1] in ("[", "{"):
        return _bracketed(text, language, depth)
    return _collection(text, language, depth)


def _quoted(text: str) -> str:
    inner = text[1:-1]
    if len(text) < 2 or len(split(text)) != 1 or text[-1] != text[0] or _closes_early(text):
        raise UnknownValueError(f"{text[:40]!r} is more than one text")
    if text[0] == "`" and "${" in inner:
        raise UnknownValueError(f"{text[:40]!r} is a template with code")
    escapes = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
    inner = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), inner)
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), inner, flags=re.DOTALL)


def _closes_early(text: str) -> bool:
    return re.fullmatch(r"(.)(?:\\.|(?!\1)[^\\])*+\1", text, re.DOTALL) is None


def _bracketed(text: str, language: str, depth: int) -> Any:
    if text[-1] != {"[": "]", "{": "}"}[text[0]] or _parts_after_first_bracket(text):
        raise UnknownValueError(f"{text[:40]!r} is no literal")
    if text[0] == "[" or language == "java":
        return [value_of(part, language, depth + 1) for part in _items(text[1:-1])]
    found = {}
    for part in _items(text[1:-1]):
        pair = split(part, ":")
        key = pair[0].strip()
        # {user} is short for {user: user}
        value = value_of(":".join(pair[1:]), language, depth + 1) if len(pair) > 1 else key
        found[_quoted(key) if key[:1] in ("'", '"') else key] = value
    return found


def _parts_after_first_bracket(text: str) -> bool:
    """Return whether the first bracket closes before the text's end."""
    try:
        split(text[1:-1])
    except ValueError:
        return True
    return False


def _collection(text: str, language: str, depth: int) -> Any:
    found = _COLLECTIONS.fullmatch(text)
    if found is None:
        raise UnknownValueError(f"{text[:60]!r} is code that is no literal")
    if found["array"] is not None:
        return _bracketed(found["array"], "java", depth)
    if found["items"] is not None:
        return [value_of(part, language, depth + 1) for part in _items(found["items"])]
    if found["pairs"] is not None:
        values = [value_of(part, language, depth + 1) for part in _items(found["pairs"])]
        return {str(key): value for key, value in zip(values[::2], values[1::2], strict=False)}
    kind = re.sub(r"<.*|.*\.", "", found["type"], flags=re.DOTALL).strip()
    return _made(text, kind, found["inner"].strip(), found["filled"], (language, depth))


def _made(text: str, kind: str, inner: str, filled: str | None, where: tuple[str, int]) -> Any:
    """Return the value of `new Kind(inner) {{ filled }}`."""
    language, depth = where
    is_map = "Map" in kind or kind == "Hashtable"
    if not is_map and not re.search(r"Array|List|Set|Vector|Queue|Deque|Stack", kind):
        raise UnknownValueError(f"{text[:60]!r} makes what is no collection")
    values = [value_of(part, language, depth + 1) for part in _items(inner)]
    if kind != "Array" and len(values) == 1 and isinstance(values[0], list | dict):
        given = values[0]
        values = [list(pair) for pair in given.items()] if isinstance(given, dict) else given
    elif kind != "Array" and values:
        raise UnknownValueError(f"{text[:60]!r} is made from what is no literal")
    for part in split(filled or "", ";"):
        if part.strip():
            values.append(_filling(part, language, depth))
    if not is_map:
        return values
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        raise UnknownValueError(f"{text[:60]!r} holds what are no pairs")
    return {str(key): value for key, value in values}


def _filling(part: str, language: str, depth: int) -> Any:
    found = _FILLING.fullmatch(part)
    if found is None:
        raise UnknownValueError(f"{part.strip()[:40]!r} fills no collection")
    values = [value_of(item, language, depth + 1) for item in _items(found["values"])]
    return values if found["how"] == "put" else values[0] if len(values) == 1 else values


def _items(text: str) -> list[str]:
    # a comma may stand after the last one
    return [part for part in split(text) if part.strip()]

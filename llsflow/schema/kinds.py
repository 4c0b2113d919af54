"""What a record takes at a place: its keys, its allowed values, in words; and pydantic's errors told in them."""

from __future__ import annotations

import difflib
import functools
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

MOST_LISTED = 20
"""Names in one message."""


@dataclass(frozen=True)
class Kind:
    """What one place takes: the types without Annotated and null, and their constraints."""

    types: tuple[Any, ...]
    constraints: tuple[Any, ...] = ()
    nullable: bool = False

    @staticmethod
    def of(annotation: Any, constraints: tuple[Any, ...] = ()) -> Kind:
        """Return the kind of a type annotation."""
        found: list[Any] = []
        limits = list(constraints)
        nullable = _peel(annotation, found, limits)
        return Kind(tuple(found), tuple(limits), nullable)

    @property
    def records(self) -> tuple[type[BaseModel], ...]:
        """The records that may stand here."""
        return tuple(t for t in self.types if isinstance(t, type) and issubclass(t, BaseModel))

    @property
    def is_open(self) -> bool:
        """Whether any value or any key may stand here."""
        return Any in self.types

    @property
    def mapping(self) -> Kind | None:
        """The kind of the values of a mapping with free keys."""
        return next((Kind.of(get_args(t)[1]) for t in self.types if get_origin(t) is dict), None)

    @property
    def items(self) -> Kind | None:
        """The kind of a list's items."""
        return next((Kind.of(get_args(t)[0]) for t in self.types if get_origin(t) is list), None)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of an enumeration; empty where there is none."""
        found: list[Any] = []
        for t in self.types:
            if get_origin(t) is Literal:
                found.extend(get_args(t))
            elif isinstance(t, type) and issubclass(t, Enum):
                found.extend(member.value for member in t)
        return tuple(found)

    @property
    def wants_text(self) -> bool:
        """Whether a text is what belongs here."""
        return str in self.types or bool(self.choices)

    def keys(self) -> Mapping[str, Kind]:
        """Return the keys of the records that may stand here."""
        return _keys(self.records)

    def child(self, key: str | int) -> Kind | None:
        """Return the kind below `key`; None: the schema has no such key."""
        if isinstance(key, int) and self.items:
            return self.items
        if isinstance(key, str) and (kind := self.keys().get(key)):
            return kind
        return self.mapping or (self if self.is_open else None)

    def words(self) -> str:
        """Return what is allowed, in words."""
        said = [_word(t, self) for t in self.types if t not in self.records and get_origin(t) is not Literal]
        if self.records:
            said.append("a mapping with " + ", ".join(self.keys()))
        if choices := [t for t in self.types if get_origin(t) is Literal]:
            said.append("one of " + ", ".join(str(c) for t in choices for c in get_args(t)))
        return " or ".join(dict.fromkeys([*said, *(["null"] if self.nullable else [])]))


def _peel(annotation: Any, found: list[Any], limits: list[Any]) -> bool:
    if annotation is None or annotation is type(None):
        return True
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        for item in metadata:
            limits.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        return _peel(inner, found, limits)
    if origin in (Union, types.UnionType):
        return any([_peel(member, found, limits) for member in get_args(annotation)])
    if annotation not in found:
        found.append(annotation)
    return False


@functools.cache  # of every request the API asks for some
def _keys(records: tuple[type[BaseModel], ...]) -> Mapping[str, Kind]:
    kinds: dict[str, list[FieldInfo]] = {}
    for record in records:
        for name, info in record.model_fields.items():
            kinds.setdefault(name, []).append(info)
    return {name: _field_kind(infos) for name, infos in kinds.items()}


def _field_kind(infos: list[FieldInfo]) -> Kind:
    merged = [Kind.of(info.annotation, tuple(info.metadata)) for info in infos]
    return Kind(
        types=tuple(dict.fromkeys(t for kind in merged for t in kind.types)),
        constraints=merged[0].constraints,
        nullable=any(kind.nullable for kind in merged),
    )


NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text", Any: "anything"}


def _word(t: Any, kind: Kind) -> str:
    if isinstance(t, type) and issubclass(t, Enum):
        return "one of " + ", ".join(str(member.value) for member in t)
    if t in (int, float):
        return NAMES[t] + _bounds(kind)
    if t is str and any(_limit(kind, "pattern")):
        return "a name of letters, digits and . _ : / - in which each part between / begins with a letter or digit"
    if get_origin(t) is list:
        most = next(_limit(kind, "max_length"), None)
        least = next(_limit(kind, "min_length"), None)
        size = f" of at most {most}" if most else f" of at least {least}" if least else ""
        return f"a list{size} (each {Kind.of(get_args(t)[0]).words()})"
    if get_origin(t) is dict or t is dict:
        return "a mapping"
    return NAMES.get(t, str(t))


def _bounds(kind: Kind) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    said = [f"{text} {_number(value)}" for name, text in words.items() for value in _limit(kind, name)]
    return " " + " and ".join(said) if said else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _limit(kind: Kind, name: str) -> Iterator[Any]:
    for constraint in kind.constraints:
        general = getattr(constraint, name, None)
        if general is not None and (name in ("pattern",) or not isinstance(constraint, StringConstraints)):
            yield general


def nearest(word: str, known: Iterable[str], alike: float = 0.6) -> list[str]:
    """Return the known word that looks most like `word`, if one is at least so much `alike` (0 to 1)."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[hit] for hit in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=alike)]


def untagged(loc: tuple[str | int, ...], root: Kind) -> tuple[tuple[str | int, ...], Kind | None]:
    """Return a location of pydantic's without the tags of union members, and the kind that the last key stands in."""
    parent: Kind | None = root
    kind: Kind | None = root
    clean: list[str | int] = []
    for part in loc:
        if kind and len(kind.records) > 1:
            tags = {tag: r for r in kind.records for tag in Kind((r,)).keys()["type"].choices}
            if part in tags:
                kind = Kind((tags[part],))
                continue
        if part == "[key]":
            continue
        clean.append(part)
        parent, kind = kind, kind.child(part) if kind else None
    return tuple(clean), parent


def mistake_in_words(details: ErrorDetails, kind: Kind | None) -> str:
    """Return what is wrong, in words: what was found and what is allowed; `kind` is what the place takes."""
    code = details["type"]
    if code == "missing":
        return f"is missing, allowed: {kind.words()}" if kind else "is missing"
    if code == "union_tag_not_found":
        return f"is missing, allowed: {', '.join(map(str, kind.choices)) if kind else 'a text'}"
    if code == "union_tag_invalid":
        tag, tags = details["ctx"]["tag"], [str(choice) for choice in kind.choices] if kind else []
        return f"found {tag!r}, allowed: {', '.join(tags)}" + did_you_mean(tag, tags)
    if code == "value_error":
        return details["msg"].removeprefix("Value error, ")
    if kind is None or kind.is_open:
        return f"found {in_words(details['input'])}: {details['msg']}"
    close = did_you_mean(details["input"], [str(choice) for choice in kind.choices])
    return f"found {in_words(details['input'])}, allowed: {kind.words()}{close}"


def did_you_mean(found: Any, choices: Iterable[str]) -> str:
    """Return a hint with the choice that looks most like what was found; empty where none does."""
    close = nearest(found, choices) if isinstance(found, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def or_known(found: str, choices: Collection[str]) -> str:
    """Return a hint with the choice that looks most like what was found; where none does, with those that there are."""
    return did_you_mean(found, choices) or f"; known are {listed(choices)}"


def listed(choices: Collection[str]) -> str:
    """Return choices as a message shows them: not more than can be read."""
    more = len(choices) - MOST_LISTED
    return (", ".join(islice(choices, MOST_LISTED)) or "none") + (f" and {more} more" if more > 0 else "")


def in_words(value: Any) -> str:
    """Return a value as a message shows it, in at most 80 characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"

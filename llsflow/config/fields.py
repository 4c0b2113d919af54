"""What the schema takes at every place: its keys, its allowed values, in words."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from llsflow.schema.experiment import Experiment, Loc


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

    def keys(self) -> dict[str, Kind]:
        """Return the keys of the records that may stand here."""
        kinds: dict[str, list[FieldInfo]] = {}
        for record in self.records:
            for name, info in record.model_fields.items():
                kinds.setdefault(name, []).append(info)
        return {name: _field_kind(infos) for name, infos in kinds.items()}

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
        return "a name of letters, digits and . _ : / - that begins with a letter or digit"
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


ROOT = Kind.of(Experiment)


def kind_at(loc: Loc) -> Kind | None:
    """Return what the schema takes at `loc`; None: it knows no such place."""
    kind: Kind | None = ROOT
    for part in loc:
        kind = kind.child(part) if kind else None
    return kind


def known_keys(kind: Kind = ROOT, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key that the schema names, parents before children."""
    for name, child in kind.keys().items():
        yield prefix + name
        yield from known_keys(child, f"{prefix}{name}.")

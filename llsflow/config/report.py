"""The report: every mistake with its place, and what is absent because of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llsflow.errors import Mistake
from llsflow.schema.experiment import Loc

ABSENT = object()
"""What a place without a value holds: null is a value."""

MISSING = "???"
"""The mark of a value that the user has to give."""


@dataclass(frozen=True)
class Place:
    """Where a key was written: a file with line and column, or the command line."""

    file: str
    line: int = 0
    column: int = 0
    plain: str | None = None
    """The text of an unquoted scalar that YAML does not read as text."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


COMMAND_LINE = "command line: "

PlaceOf = Callable[[Loc], Place]
"""Place of a location relative to what is being merged."""


def command_line(text: str) -> Place:
    """Return the place of an override."""
    return Place(COMMAND_LINE + text)


def dotted(loc: Loc) -> str:
    """Return a location as it is written in an override."""
    return ".".join(str(part) for part in loc)


@dataclass
class Report:
    """Collects mistakes, so that the first does not hide the others."""

    typed: Sequence[str] = ()
    """The command line, in whose order its mistakes are told."""
    found: list[tuple[Place, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    absent: set[Loc] = field(default_factory=set)
    """Places that hold nothing because of a mistake told already: their absence is not told again."""

    def add(self, place: Place, message: str, *, absent: Loc | None = None) -> None:
        """Note a mistake, and the place that holds nothing because of it."""
        if (place, message) not in self.found:
            self.found.append((place, message))
        if absent is not None:
            self.absent.add(absent)

    def warn(self, message: str) -> None:
        """Note something that may surprise."""
        if message not in self.warnings:
            self.warnings.append(message)

    def explains_absence(self, loc: Loc) -> bool:
        """Whether a mistake told already is why nothing stands at `loc`."""
        return any(loc[: len(gone)] == gone for gone in self.absent)

    def touches(self, loc: Loc) -> bool:
        """Whether something at, above or below `loc` is absent because of a mistake told already."""
        return any(loc[: len(gone)] == gone or gone[: len(loc)] == loc for gone in self.absent)

    def mistakes(self) -> list[Mistake]:
        """Return all mistakes: files first, by line; then the command line as typed."""
        ordered = sorted(self.found, key=lambda item: self._order(item[0]))
        return [Mistake(str(place), _once(place, message)) for place, message in ordered]

    def _order(self, place: Place) -> tuple[int, str, int]:
        if place.line:
            return 0, place.file, place.line
        text = place.file.removeprefix(COMMAND_LINE)
        return 1, "", self.typed.index(text) if text in self.typed else -1


def _once(place: Place, message: str) -> str:
    """Return the message without the key that a command line place names already."""
    key = place.file.removeprefix(COMMAND_LINE).partition("=")[0].lstrip("+~")
    return message if place.line else message.removeprefix(f"{key}: ")

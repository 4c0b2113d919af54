"""Mistakes of rows, each kind of them once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llsflow.errors import Mistake

_NAMED_ROWS = 10
"""Further rows of the same kind that are named."""

_VALUE = re.compile(r"""\b(?:str|int|float|bool|list|dict) (?:'.*?'|".*?")(?=[:,]|$)|\d+""")
"""What differs between two rows with the same mistake: numbers, and the value that was found."""


def grouped(mistakes: Sequence[Mistake], most: int) -> list[Mistake]:
    """Return the first mistake of each kind, with how many more rows have it and which; kinds over `most` are counted.

    Mistakes are of one kind when their sentences differ in numbers and in the value that was found alone.
    """
    kinds: dict[str, list[Mistake]] = {}
    for mistake in mistakes:
        kinds.setdefault(_VALUE.sub("0", mistake.message), []).append(mistake)
    found = [_with_others(same) for same in list(kinds.values())[:most]]
    if left := list(kinds.values())[most:]:
        found.append(Mistake("", f"and {sum(map(len, left))} more rows with {len(left)} other kinds of mistakes"))
    return found


def _with_others(same: Sequence[Mistake]) -> Mistake:
    first, *others = same
    if not others:
        return first
    places = [other.where.rpartition(":")[2].rpartition(" ")[2] for other in others[:_NAMED_ROWS]]
    more = ", …" if len(others) > _NAMED_ROWS else ""
    rows = "row" if len(others) == 1 else "rows"
    return Mistake(first.where, f"{first.message} (the same in {len(others):,} more {rows}: {', '.join(places)}{more})")

"""Values of other formats as JSON has them: dates as ISO text, decimals as text; what has no such form is refused."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Collection, Mapping
from typing import Any

_AS_THEY_ARE = (str, int, float, bool, type(None))


class BadRow(ValueError):
    """A row that cannot be read."""


def plain_row(row: Mapping[str, Any]) -> dict[str, Any] | BadRow:
    """Return the row in JSON's types, or why it cannot be."""
    plain: dict[str, Any] = {}
    for column, value in row.items():
        try:
            plain[column] = value if type(value) in _AS_THEY_ARE else _plain(value)
        except ValueError as error:
            return BadRow(f"{column} holds {error}")
    return plain


def refuse_half_characters_of_row(row: Mapping[str, Any], line: bytes, read: Collection[str]) -> None:
    """Refuse a row with text that is not valid Unicode: half a character outside the basic plane, as "\\ud83d" alone.

    Args:
        row: the row.
        line: the row as JSON, in which such halves are escaped.
        read: the columns that a model is given; others are kept as they are.

    Raises:
        ValueError: there is such text, with its column.
    """
    if b"\\ud" not in line:
        return
    for column, value in row.items():
        if column not in read:
            continue
        refuse_half_characters(value, column)


def refuse_half_characters(value: Any, where: str) -> None:
    """Refuse a value of JSON with text that is not valid Unicode, as `refuse_half_characters_of_row` does."""
    try:
        json.dumps([where, value], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where} holds text that is not valid Unicode (a lone surrogate, half of a character): write the "
            "whole character, or remove it"
        ) from None


def without_filled_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a typed table without the nulls within its columns.

    All objects of such a column have the same keys: where one has none of them, the writer of the table has filled in
    null. The columns themselves stay.
    """
    return {column: _without_nulls(value) for column, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the row with columns under the names that row formats read.

    Args:
        row: as it is in the file.
        columns: name that is read -> name in the file.

    Raises:
        ValueError: the file's column is not there, or another one has the name already.
    """
    if missing := [f"{name}: {theirs}" for name, theirs in columns.items() if theirs not in row]:
        raise ValueError(f"dataset.columns has {', '.join(missing)}: the columns here are {', '.join(map(str, row))}")
    moved = set(columns.values())
    if taken := [name for name in columns if name in row and name not in moved]:
        raise ValueError(
            f"dataset.columns gives another column the name {taken[0]}, which one here has already: the columns here "
            f"are {', '.join(map(str, row))}"
        )
    left = {name: value for name, value in row.items() if name not in moved}
    return {**{name: row[theirs] for name, theirs in columns.items()}, **left}


def _plain(value: Any) -> Any:
    if isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"a key of type {type(odd[0]).__name__}: JSON's keys are texts")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime.timedelta):
        raise ValueError("a duration, which has no form in JSON: write a number and name its unit in the column")
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("bytes, which have no form in JSON: write text")
    raise ValueError(f"a {type(value).__name__}, which has no form in JSON")

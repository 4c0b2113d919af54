"""Rows as lines: what is stored comes back exactly, and the same rows have the same digest however they came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

EMPTY = hashlib.sha256().hexdigest()
"""Digest of no rows."""

# without the watch for circles, which costs a fifth: in a row that holds itself the recursion ends as well
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line of compact JSON, its keys in their order.

    Raises:
        ValueError: it holds what JSON has not: NaN, infinity, a key that is no string, another type.
    """
    for key in row:
        if not isinstance(key, str):
            raise ValueError(f"the key {key!r} is not a string")
    try:
        text = _to_json(row if isinstance(row, dict) else dict(row))
    except TypeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError(_no_number(row)) from None
    # UTF-8 has no lone surrogates: inside a JSON string their escape means the same
    return text.encode("utf-8", "backslashreplace")


def _no_number(row: Mapping[str, Any]) -> str:
    """Return the sentence about the column with NaN or infinity, of which JSON has neither."""
    for column, value in row.items():
        try:
            _to_json(value)
        except ValueError:
            found = f"is {value}" if isinstance(value, float) else "holds NaN or infinity"
            return f"{column} {found}, which JSON has not: write null or a number"
    return "it holds NaN or infinity, which JSON has not"


def decode_row(line: bytes) -> dict[str, Any]:
    """Return the row of a line that `encode_row` made."""
    row: dict[str, Any] = json.loads(line)
    return row


def chain(digest: str, lines: Iterable[bytes]) -> str:
    """Return the digest of the rows of `digest` followed by `lines`: sha256(digest so far, line), line by line."""
    sha256 = hashlib.sha256
    link = bytes.fromhex(digest)
    for line in lines:
        link = sha256(link + line).digest()
    return link.hex()

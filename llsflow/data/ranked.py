"""Rows of a query, the items to be put in order for it, and how relevant each is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.data.conversation import Messages, Row, RowFormat, text_of, user


@dataclass(frozen=True)
class Ranked:
    """What one row asks of a reranker, and what is known of its items."""

    query: str
    items: Sequence[str]
    relevance: Sequence[float]
    """For each item; 0: it is not relevant."""


def ranked_row(row: Row) -> Ranked:
    """Return the query, the items and their relevance.

    Raises:
        ValueError: a column is missing or holds something else.
    """
    query = text_of(row, "query")
    items, relevance = _list(row, "items"), _list(row, "relevance")
    for place, item in enumerate(items):
        if not isinstance(item, str) or not item:
            raise ValueError(f"items[{place}] is {str(item)[:40]!r}: a text is needed")
    for place, grade in enumerate(relevance):
        if isinstance(grade, bool) or not isinstance(grade, int | float) or not 0 <= grade < math.inf:
            raise ValueError(f"relevance[{place}] is {str(grade)[:40]!r}: a number from 0 on is needed")
    if len(items) != len(relevance):
        raise ValueError(f"items are {len(items)} and relevance {len(relevance)}: a number for each item is needed")
    return Ranked(query, items, relevance)


def _list(row: Row, column: str) -> list[Any]:
    """Return a column that holds a list or, as a cell of a CSV file must, its JSON."""
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{column} is text, but not JSON: a list, or its JSON, is needed") from None
    if not isinstance(value, list) or not value:
        raise ValueError(f"{column} is {str(value)[:40]!r}: a list with at least one element is needed")
    return value


def _question(row: Row) -> tuple[Messages, str]:
    ranked = ranked_row(row)
    return [user(ranked.query)], json.dumps(ranked.relevance)


def _training(_: Row) -> Messages:
    raise ValueError("query+items+relevance is for rerankers: nothing is trained on it")


def _all(row: Row) -> Messages:
    ranked = ranked_row(row)
    return [user(text) for text in (ranked.query, *ranked.items)]


RANKED = RowFormat(
    ("query", "items", "relevance"), _training, _question, turns=_all, asks=lambda row: _question(row)[0]
)

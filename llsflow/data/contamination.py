"""Rows of a benchmark that repeat a passage of the training data, though their prompts differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from llsflow.data.conversation import Row

PASSAGE_WORDS = 13
"""Words that stand in the same order on both sides."""
COMMON_ROWS = 10
"""A passage of more training rows than this is a phrase of the task, such as its instructions, and tells nothing."""

_WORD = re.compile(r"\w+")


def shared_passages(training: Iterable[Row], judged: Sequence[Row]) -> list[int]:
    """Return the places of the judged rows that share a passage with a few training rows, from 0.

    Source: Brown et al. 2020, arXiv:2005.14165, appendix C: 13 words, lower case, without punctuation, those of more
    than 10 training documents left out.
    """
    places: dict[int, list[int]] = {}
    for place, row in enumerate(judged):
        for passage in set(_passages(row)):
            places.setdefault(passage, []).append(place)
    found = dict.fromkeys(places, 0)
    if found:
        for row in training:
            for passage in found.keys() & set(_passages(row)):
                found[passage] += 1
    return sorted({place for passage, times in found.items() if 0 < times <= COMMON_ROWS for place in places[passage]})


def _passages(row: Row) -> Iterator[int]:
    for text in _texts(row):
        words = _WORD.findall(text.lower())
        for start in range(len(words) - PASSAGE_WORDS + 1):
            yield hash(tuple(words[start : start + PASSAGE_WORDS]))


def _texts(value: object) -> Iterator[str]:
    """Yield every text of a row, whatever its columns."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)

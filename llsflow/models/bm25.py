"""BM25: relevance by shared words, without weights."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

K1, B = 1.2, 0.75
"""How soon a word's repetition stops counting, and how much a long item is discounted."""

# scripts that write no blanks between words: each character is a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0e7f]|\w+")
_RUN = re.compile(r"\w+")
# what `_RUN` finds in lower case, in a quarter of the time
_ASCII = "".join(chr(code).lower() if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128))


def words(text: str) -> list[str]:
    """Return a text's words as they are compared: NFKC, without case, and single characters where none are parted."""
    if text.isascii():
        return text.translate(_ASCII).split()
    folded = unicodedata.normalize("NFKC", text).casefold()
    found: list[str] = []
    for run in _RUN.findall(folded):
        found += _WORD.findall(run) if not run.isascii() else [run]
    return found


def bm25(query: str, items: Sequence[str]) -> list[float]:
    """Return the relevance of each item among these; 0: it shares no word with the query.

    Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15, over the
    items of one request; the inverse document frequency is ln(1 + (n - m + 0.5) / (m + 0.5)), for m of n items with the
    word, which is never negative (Lucene's BM25Similarity).
    """
    asked = set(words(query))
    lengths: list[int] = []
    held: dict[str, dict[int, int]] = {word: {} for word in asked}
    for place, item in enumerate(items):
        found = words(item)
        lengths.append(len(found))
        for word in asked.intersection(found):
            held[word][place] = found.count(word)
    mean = sum(lengths) / len(items) or 1.0
    scores = [0.0] * len(items)
    for word in sorted(asked):
        weight = math.log(1 + (len(items) - len(held[word]) + 0.5) / (len(held[word]) + 0.5))
        for place, times in held[word].items():
            scores[place] += weight * times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[place] / mean))
    return scores

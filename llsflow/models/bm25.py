"""BM25: relevance by shared words, without weights."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

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
    """Return the relevance of each item among these; 0: it shares no word with the query."""
    return relevance(query, map(words, items))


def relevance(query: str, items: Iterable[Sequence[str]]) -> list[float]:
    """Return the relevance of each item among these, which are given by their words.

    Source: Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", equation 3.15, over the
    items of one request; the inverse document frequency is ln(1 + (n - m + 0.5) / (m + 0.5)), for m of n items with the
    word, which is never negative (Lucene's BM25Similarity).
    """
    asked = set(words(query))
    lengths: list[int] = []
    held: dict[str, dict[int, int]] = {word: {} for word in asked}
    for place, found in enumerate(items):
        lengths.append(len(found))
        shared = asked.intersection(found)
        # of a few words the counts are had sooner one by one
        times = found.count if len(shared) < 8 else Counter(found).__getitem__
        for word in shared:
            held[word][place] = times(word)
    mean = sum(lengths) / len(lengths) or 1.0
    scores = [0.0] * len(lengths)
    for word in sorted(asked):
        weight = math.log(1 + (len(lengths) - len(held[word]) + 0.5) / (len(held[word]) + 0.5))
        for place, often in held[word].items():
            scores[place] += weight * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths[place] / mean))
    return scores

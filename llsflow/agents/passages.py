"""Passages of long documents: those that have to do with a question, by shared words or by the likeness of vectors."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llsflow.agents.splitting import split
from llsflow.models.bm25 import relevance, words
from llsflow.schema.server import AgentsConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Texts -> the vector of each, by server.agents.embedding_model."""
EMBEDDED_AT_ONCE = 64
"""Passages whose vectors are asked for together."""
CACHED_CHARACTERS = 50_000_000
"""Of split documents, with their words, that are kept for the next question."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document."""

    document: int
    """Number of the document, from 1."""
    place: int
    """Number of the passage in it, from 1."""
    of: int
    """Passages of the document."""
    text: str


@dataclass(frozen=True)
class SplitDocument:
    """A document's passages with what ranking needs of them."""

    texts: Sequence[str]
    words: Sequence[str]
    """The words of each, a blank between two."""
    vectors: dict[str | None, Vectors] = field(default_factory=dict)
    """By the name of the embedding model; each of length 1."""


@dataclass(frozen=True)
class Passages:
    """The passages of some documents, in their order."""

    documents: Sequence[SplitDocument]
    every: Sequence[Passage]


async def passages_of(texts: Sequence[str], config: AgentsConfig) -> Passages:
    """Return the passages of documents, split in a thread; a text that was split before is not split again."""
    return await asyncio.to_thread(_passages, texts, config.passage_characters)


async def best(query: str, passages: Passages, config: AgentsConfig, embed: Embed | None = None) -> list[Passage]:
    """Return what goes to the model: the passages that have most to do with a query, in the order of the documents.

    They are `config.passages` at most, and together no longer than `config.documents_characters`. Where none has to do
    with the query, these are the first of each document: who asks for a summary shares no word with it.
    """
    # the sort keeps the order of the documents among the first passages, then among the second
    candidates = await ranked(query, passages, config, embed) or sorted(passages.every, key=lambda one: one.place)
    chosen: list[Passage] = []
    left = config.documents_characters
    for passage in candidates:
        if len(chosen) < config.passages and len(passage.text) <= left:
            chosen.append(passage)
            left -= len(passage.text)
    return sorted(chosen, key=lambda one: (one.document, one.place))


async def ranked(query: str, passages: Passages, config: AgentsConfig, embed: Embed | None = None) -> list[Passage]:
    """Return all passages that have to do with a query, the best first; equal ones in the order of the documents.

    By words they share one with the query at least; by vectors, theirs and the query's are less than a right angle
    apart. Errors of `embed` pass.
    """
    if not passages.every:
        return []
    if embed is None:
        scores = await asyncio.to_thread(_by_words, query, passages)
    else:
        scores = await _by_vectors(query, passages, config.embedding_model, embed)
    relevant = (place for place, score in enumerate(scores) if score > 0)
    return [passages.every[place] for place in sorted(relevant, key=lambda place: -scores[place])]


def _by_words(query: str, passages: Passages) -> list[float]:
    return relevance(query, (one.split() for document in passages.documents for one in document.words))


async def _by_vectors(query: str, passages: Passages, model: str | None, embed: Embed) -> list[float]:
    """Return the cosine of each passage's vector and the query's."""
    (asked,) = await _embedded([query], embed)
    scores: list[float] = []
    for document in filter(lambda one: one.texts, passages.documents):
        vectors = document.vectors.get(model)
        # another model may have taken the name
        if vectors is None or vectors.shape[1] != len(asked):
            vectors = document.vectors[model] = await _embedded(document.texts, embed)
        scores += (vectors @ asked).tolist()
    return scores


async def _embedded(texts: Sequence[str], embed: Embed) -> Vectors:
    import numpy as np

    found: list[Vectors] = []
    for first in range(0, len(texts), EMBEDDED_AT_ONCE):
        made = np.asarray(await embed(texts[first : first + EMBEDDED_AT_ONCE]), dtype=np.float32)
        found.append(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), np.finfo(np.float32).tiny))
    return np.concatenate(found)


class _Cache:
    """Split documents by their content; the one not used for longest leaves first. For many threads."""

    def __init__(self, most_characters: int) -> None:
        self.most_characters = most_characters
        self._kept: OrderedDict[tuple[bytes, int], tuple[SplitDocument, int]] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def split(self, text: str, most: int) -> SplitDocument:
        # of the text only the passages stay in memory
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), most
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        texts = split(text, most)
        found = SplitDocument(texts, [" ".join(words(one)) for one in texts])
        self._keep(key, found, len(text) + sum(map(len, found.words)))
        return found

    def _keep(self, key: tuple[bytes, int], document: SplitDocument, characters: int) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = document, characters
            self._characters += characters
            while self._characters > self.most_characters:
                _, (_, gone) = self._kept.popitem(last=False)
                self._characters -= gone


_cache = _Cache(CACHED_CHARACTERS)


def _passages(texts: Sequence[str], most: int) -> Passages:
    documents = [_cache.split(text, most) for text in texts]
    every = [
        Passage(number, place, len(document.texts), text)
        for number, document in enumerate(documents, start=1)
        for place, text in enumerate(document.texts, start=1)
    ]
    return Passages(documents, every)

"""Items put in the order of their relevance to a query."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from llsflow.errors import ConfigError, Mistake, UnavailableError
from llsflow.models.bm25 import bm25
from llsflow.models.remote import RemoteModel
from llsflow.schema.models import ModelConfig
from llsflow.schema.rerank import (
    OpenAIChatCompletionContentPartTextParam,
    RerankData,
    RerankItem,
    RerankRequest,
    RerankResponse,
)

Asked = Mapping[int, tuple[str, Sequence[str]]]
"""Queries and their items, by place."""
Rank = Callable[[Asked], Mapping[int, "Sequence[float] | ValueError"]]
"""Queries of n items each -> n scores, the higher the more relevant, or why there are none; by place."""

AT_ONCE = 8
"""Requests that the engine is asked at the same time: it answers one after another."""


def ranker_of(model: ModelConfig, engine_url: Callable[[], str]) -> Rank:
    """Return what ranks by a model: an endpoint's where it is, another in the embedded engine.

    Raises:
        ConfigError: the model writes text, or the key of its endpoint is not set.
    """
    if model.model_type != "rerank":
        found = f"{model.model_id!r} writes text and ranks nothing"
        raise ConfigError([Mistake("model", f"{found}: take a model of model_type rerank, for example bm25")])
    if model.builtin:
        return rank_by_words
    if model.endpoint:
        return RemoteModel.of(model).rank
    return RemoteModel.of_engine(engine_url(), model.model_id, at_once=AT_ONCE).rank


def rank_by_words(asked: Asked) -> dict[int, list[float]]:
    """Return the items' scores by BM25."""
    return {place: bm25(query, items) for place, (query, items) in asked.items()}


def rerank(request: RerankRequest, rank: Rank) -> RerankResponse:
    """Return the items' places and scores, the most relevant first; of equal ones the first in the request.

    Raises:
        ConfigError: images, each with its place.
        LlsflowError: why there are no scores.
    """
    places = [("query", request.query), *((f"items.{place}", item) for place, item in enumerate(request.items))]
    texts, mistakes = [], []
    for where, item in places:
        text = _text(item)
        if text is None:
            mistakes.append(Mistake(where, f"is an image: {request.model} reads text, send a text or a text part"))
        else:
            texts.append(text)
    if mistakes:
        raise ConfigError(mistakes)
    scores = rank({0: (texts[0], texts[1:])})[0]
    if isinstance(scores, ValueError):
        raise UnavailableError(f"{request.model} has no scores for these items: {scores}")
    return RerankResponse(data=in_order(scores, request.max_num_results))


def in_order(scores: Sequence[float], max_num_results: int | None = None) -> list[RerankData]:
    """Return places and scores, the highest first, of equal ones the first, and of all no more than are wanted."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return [RerankData(index=place, relevance_score=scores[place]) for place in order[:max_num_results]]


def as_answer(scores: Sequence[float], max_num_results: int | None = None) -> str:
    """Return the order as evaluations keep it: the JSON of what a RerankResponse holds."""
    return json.dumps([one.model_dump() for one in in_order(scores, max_num_results)])


def _text(item: RerankItem) -> str | None:
    if isinstance(item, str):
        return item
    return item.text if isinstance(item, OpenAIChatCompletionContentPartTextParam) else None

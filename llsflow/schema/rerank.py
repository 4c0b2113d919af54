"""Reranking: documents put in the order of their relevance to a query."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llsflow.schema.base import Identifier, NonNegativeInt, PositiveInt, Record, Text


class OpenAIImageURL(Record):
    """Where an image lies."""

    url: Text
    """https:// or data:."""
    detail: Text | None = None
    """low, high or auto: at which resolution it is read."""


class OpenAIChatCompletionContentPartTextParam(Record):
    """A text to rank by or to be ranked."""

    type: Literal["text"] = "text"
    text: str


class OpenAIChatCompletionContentPartImageParam(Record):
    """An image to rank by or to be ranked."""

    type: Literal["image_url"] = "image_url"
    image_url: OpenAIImageURL


RerankItem = str | OpenAIChatCompletionContentPartTextParam | OpenAIChatCompletionContentPartImageParam


class RerankRequest(Record):
    """What `POST /v1alpha/inference/rerank` takes."""

    model: Identifier
    query: RerankItem
    items: Annotated[list[RerankItem], Field(min_length=1)]
    """What is put in order."""
    max_num_results: PositiveInt | None = None
    """The first so many of the order; null: all."""


class RerankData(Record):
    """One place of the order."""

    index: NonNegativeInt
    """Of the item, in the request."""
    relevance_score: float
    """The higher, the more relevant."""


class RerankResponse(Record):
    """The order, the most relevant first."""

    data: list[RerankData]

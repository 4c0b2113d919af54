"""Reranking: published as it will be, and not available yet."""

from __future__ import annotations

from fastapi import APIRouter

from llsflow.api.openapi import published
from llsflow.errors import NotFoundError

router = APIRouter()


@router.post(
    "/v1alpha/inference/rerank",
    **published("RerankResponse", takes="RerankRequest", says="The items' order, the most relevant first."),
)
def rerank() -> None:
    """Put items in the order of their relevance to a query."""
    raise NotFoundError("reranking is not available yet: data sets, benchmarks, training and evaluation are")

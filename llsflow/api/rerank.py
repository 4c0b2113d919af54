"""Reranking: items in the order of their relevance to a query."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from llsflow.api.body import taken
from llsflow.api.deps import Server, reply, slowly
from llsflow.api.openapi import published
from llsflow.schema.rerank import RerankRequest, RerankResponse

router = APIRouter()


@router.post(
    "/v1alpha/inference/rerank",
    **published(RerankResponse, takes=RerankRequest, says="The items' order, the most relevant first."),
)
async def rerank(services: Server, body: Annotated[RerankRequest, Depends(taken(RerankRequest))]) -> Response:
    """Put items in the order of their relevance to a query."""
    return reply(await slowly(services.jobs.rerank, body))

"""Reranking: items in the order of their relevance to a query."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from llsflow.api.body import taken
from llsflow.api.deps import Server, Services, reply, slowly
from llsflow.api.openapi import published
from llsflow.errors import ConfigError, Mistake, NotFoundError
from llsflow.schema.kinds import did_you_mean
from llsflow.schema.rerank import RerankRequest, RerankResponse

router = APIRouter()


@router.post(
    "/v1alpha/inference/rerank",
    **published(RerankResponse, takes=RerankRequest, says="The items' order, the most relevant first."),
)
async def rerank(services: Server, body: Annotated[RerankRequest, Depends(taken(RerankRequest))]) -> Response:
    """Put items in the order of their relevance to a query."""
    return reply(await slowly(_ranked, services, body))


def _ranked(services: Services, request: RerankRequest) -> RerankResponse:
    from llsflow.rerank import RERANKERS
    from llsflow.rerank import rerank as ranked

    if request.model not in RERANKERS:
        known = f"known are {', '.join(RERANKERS)}"
        if any(model.identifier == request.model for model in services.jobs.models()):
            raise ConfigError([Mistake("model", f"{request.model!r} generates text and ranks nothing: {known}")])
        raise NotFoundError(f"no reranker {request.model!r}{did_you_mean(request.model, RERANKERS)}; {known}")
    return ranked(request, RERANKERS[request.model])

"""Models: those of conf/model, the checkpoints of training jobs, and rerankers."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from llsflow.api.deps import Server, reply
from llsflow.api.openapi import published
from llsflow.errors import NotFoundError
from llsflow.schema.kinds import or_known
from llsflow.schema.models import ListModelsResponse, Model

router = APIRouter()


@router.get("/v1/models", **published(ListModelsResponse, says="Every model."))
def list_models(services: Server) -> Response:
    """List what candidates, training jobs and reranking can name as their model."""
    return reply(ListModelsResponse(data=services.jobs.models()))


@router.get("/v1/models/{model_id:path}", **published(Model, says="The model."))
def get_model(model_id: str, services: Server) -> Response:
    """Return a model."""
    models = {model.identifier: model for model in services.jobs.models()}
    if model_id not in models:
        raise NotFoundError(f"no model {model_id!r}{or_known(model_id, models)}")
    return reply(models[model_id])

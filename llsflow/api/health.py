"""Whether the server is there, how its parts are, and which version it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llsflow.api.deps import Server, reply
from llsflow.api.door import KNOWN
from llsflow.api.openapi import published
from llsflow.schema.health import HealthInfo, VersionInfo

router = APIRouter()


# async: who watches a busy server is not to wait for one of its threads
@router.get("/v1/health", **published(HealthInfo, says="How the server is."))
async def health(request: Request, services: Server) -> Response:
    """Return whether requests are answered; to those who may come in, also how each part is, or was just now."""
    if not request.scope.get(KNOWN):
        return reply(HealthInfo(status="OK"))
    return reply(HealthInfo(status="OK", parts=dict(await services.parts.now())))


@router.get("/v1/version", **published(VersionInfo, says="The version."))
def version() -> Response:
    """Return the version of llsflow."""
    from importlib.metadata import version as installed

    return reply(VersionInfo(version=installed("llsflow")))

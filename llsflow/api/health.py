"""Whether the server is there, how its parts are, and which version it is."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llsflow.api.deps import Server, Services, reply
from llsflow.api.door import KNOWN
from llsflow.api.openapi import published
from llsflow.errors import LlsflowError
from llsflow.schema.health import HealthInfo, HealthPart, PartState, VersionInfo

router = APIRouter()

STARTED = datetime.now(UTC)


@router.get("/v1/health", **published(HealthInfo, says="How the server is."))
def health(request: Request, services: Server) -> Response:
    """Return whether requests are answered; to those who may come in, also how each part is."""
    if not request.scope.get(KNOWN):
        return reply(HealthInfo(status="OK"))
    api = HealthPart(state=PartState.OK, since=STARTED)
    return reply(HealthInfo(status="OK", parts={"api": api, "store": _store(services), **services.health()}))


def _store(services: Services) -> HealthPart:
    try:
        services.store.benchmarks.list()
    except LlsflowError as error:
        return HealthPart(state=PartState.DOWN, why=str(error))
    return HealthPart(state=PartState.OK, since=STARTED)


@router.get("/v1/version", **published(VersionInfo, says="The version."))
def version() -> Response:
    """Return the version of llsflow."""
    from importlib.metadata import version as installed

    return reply(VersionInfo(version=installed("llsflow")))

"""What the endpoints work with: the one door to the store, the jobs and everything heavier."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic_core import PydanticSerializationError

from llsflow.api.aside import Aside
from llsflow.schema.base import Record
from llsflow.schema.health import HealthPart
from llsflow.schema.server import ServerConfig

if TYPE_CHECKING:
    from llsflow.jobs.service import JobsService
    from llsflow.store import Store


@dataclass
class Services:
    """What a running server is made of."""

    server: ServerConfig
    store: Store
    jobs: JobsService
    health: Callable[[], Mapping[str, HealthPart]] = dict
    """Returns how what runs beside the API is: prefect, worker, engine, mlflow."""
    aside: Aside = field(default_factory=Aside)
    """Another process, for what would keep this one from answering."""

    def close(self) -> None:
        """End what was started for the endpoints."""
        self.aside.close()


# async, so that FastAPI does not hand so little to another thread
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Server = Annotated[Services, Depends(_services)]


def reply(record: Record, status: int = 200) -> Response:
    """Return a record as the answer."""
    try:
        content = record.model_dump_json()
    except PydanticSerializationError:
        # text that is no proper Unicode: JSON's escapes carry it
        content = json.dumps(record.model_dump(mode="json"))
    return Response(content, status, media_type="application/json")


def null() -> Response:
    """Return the answer of an operation that has nothing to say but that it is done."""
    return Response(b"null", media_type="application/json")


def done() -> Response:
    """Return the answer of an operation after which there is nothing."""
    return Response(status_code=204)

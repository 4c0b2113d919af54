"""What the endpoints work with: the one door to the store, the jobs and everything heavier."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from llsflow.api.aside import Aside
from llsflow.api.parts import Parts
from llsflow.schema.base import Record
from llsflow.schema.health import HealthPart
from llsflow.schema.server import ServerConfig

if TYPE_CHECKING:
    from llsflow.agents.service import AgentsService
    from llsflow.api.traces import TraceShipper
    from llsflow.jobs.service import JobsService
    from llsflow.store import Store

P = ParamSpec("P")
T = TypeVar("T")


WARM = (
    "aiohttp",
    "llsflow.agents.service",
    "llsflow.config.benchmarks",
    "llsflow.data.catalogue",
    "llsflow.data.registration",
    "llsflow.jobs.views",
    "llsflow.rerank",
    "llsflow.scorers",
)
"""What requests import when they first need it."""


@dataclass
class Services:
    """What a running server is made of."""

    server: ServerConfig
    store: Store
    jobs: JobsService
    agents: AgentsService
    health: Callable[[], Mapping[str, HealthPart]] = dict
    """Returns how what runs beside the API is: prefect, worker, engine, mlflow."""
    traces: TraceShipper | None = None
    """Brings the traces of turns to MLflow; null: none are made."""
    aside: Aside = field(default_factory=Aside)
    """Another process, for what would keep this one from answering."""

    def __post_init__(self) -> None:
        self.parts = Parts(self.store, self.health)

    def warm(self) -> None:
        """Load in the background what the first requests would wait for; to be called once reads are answered."""

        def load() -> None:
            for name in WARM:
                importlib.import_module(name)
            self.aside.warm()

        threading.Thread(target=load, name="api-warm", daemon=True).start()

    def close(self) -> None:
        """End what was started for the endpoints."""
        self.aside.close()
        self.agents.close_from_outside()
        if self.traces:
            self.traces.close()


# async, so that FastAPI does not hand so little to another thread
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Server = Annotated[Services, Depends(_services)]


SLOW_AT_ONCE = 16
"""Requests that may take long and are worked on at the same time; others like them wait, and quick ones do not."""

_slow: RunVar[CapacityLimiter] = RunVar("slow")


async def slowly(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what a function returns that may take long, without taking a thread from what is quick."""
    try:
        limiter = _slow.get()
    except LookupError:
        limiter = CapacityLimiter(SLOW_AT_ONCE)
        _slow.set(limiter)
    return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=limiter)


def reply(record: Record, status: int = 200) -> Response:
    """Return a record as the answer."""
    try:
        content = record.model_dump_json()
    except PydanticSerializationError:
        # text that is no proper Unicode: JSON's escapes carry it
        content = json.dumps(record.model_dump(mode="json"))
    return Response(content, status, media_type="application/json")


def reply_plain(value: Any) -> Response:
    """Return what a record is written as, which was checked when it was stored, as the answer."""
    try:
        content = to_json(value)
    except PydanticSerializationError:
        content = json.dumps(to_jsonable_python(value)).encode()
    return Response(content, media_type="application/json")


def null() -> Response:
    """Return the answer of an operation that has nothing to say but that it is done."""
    return Response(b"null", media_type="application/json")


def done() -> Response:
    """Return the answer of an operation after which there is nothing."""
    return Response(status_code=204)

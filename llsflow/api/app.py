"""The API as one ASGI application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from llsflow.api import (
    agents,
    benchmarks,
    datasetio,
    datasets,
    evaluations,
    health,
    incoming,
    models,
    post_training,
    rerank,
    scoring,
)
from llsflow.api.access import Access
from llsflow.api.deps import Services
from llsflow.api.door import Door
from llsflow.api.errors import HTTPError
from llsflow.api.openapi import openapi

RESOURCES = (
    agents.router,
    datasets.router,
    datasetio.router,
    evaluations.router,
    benchmarks.router,
    benchmarks.named,
    post_training.router,
    models.router,
    scoring.router,
    health.router,
    rerank.router,
)
"""In the order in which paths are looked up: those that stream come first."""


def create_app(services: Services) -> FastAPI:
    """Return the application that serves `services`.

    Raises:
        ConfigError: the file of keys cannot be read.
    """
    app = FastAPI(
        title="llsflow",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        exception_handlers={HTTPException: _misdirected},
    )
    app.state.services = services
    incoming.sweep()
    for router in RESOURCES:
        app.include_router(router)
    app.add_middleware(Door, access=Access(services.server))
    app.add_api_route("/openapi.json", _published_schema, include_in_schema=False)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.add_api_route("/", _front, include_in_schema=False)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    if app.state.services.agents:
        await app.state.services.agents.close()


async def _misdirected(request: Request, error: HTTPException) -> Response:
    """Say what is wrong with a request that no operation takes; the door makes the answer."""
    if isinstance(error, HTTPError):
        raise error
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        detail = f"{request.method} is not allowed here: allowed is {', '.join(allowed)}"
        raise HTTPError(405, detail, {"Allow": ", ".join(allowed)})
    if error.status_code == 404:
        raise HTTPError(404, "there is nothing here: /docs lists the paths")
    raise error


def _allowed_methods(request: Request) -> list[str]:
    routes = [route for router in RESOURCES for route in router.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    # a path with slashes in a name matches too, where a more exact one is meant
    same = [route for route in matching if route.path == matching[0].path]
    return sorted({method for route in same for method in route.methods or ()})


def _published_schema(request: Request) -> Response:
    app = request.app
    if app.openapi_schema is None:
        app.openapi_schema = openapi(app)
    return Response(json.dumps(app.openapi_schema, ensure_ascii=False), media_type="application/json")


def _front() -> Response:
    """Lead who opens the server's address in a browser to its documentation."""
    return RedirectResponse("/docs")


def _docs() -> Response:
    # nothing of another site, and no page of one around it
    policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'; base-uri 'none'"}
    return HTMLResponse((Path(__file__).parent / "docs.html").read_text("utf-8"), headers=headers)

"""One body for every error: which exception becomes which status, and what it may say."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

from llsflow import home
from llsflow.errors import (
    BusyError,
    ConfigError,
    ConflictError,
    DataError,
    LlsflowError,
    ModelError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from llsflow.schema.errors import Error

logger = logging.getLogger("llsflow.api")

RETRY_SECONDS = 5
"""When a client may try again what was not available."""

MOST_CHARACTERS = 10_000
"""Of an error's detail."""

STATUS: dict[type[LlsflowError], int] = {
    ConfigError: 400,
    DataError: 400,
    ModelError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    UnavailableError: 503,
    StorageError: 507,
}

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class HTTPError(HTTPException):
    """A refusal that HTTP itself asks for: a key, a smaller body, another content type."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))


def answer(error: Exception, path: str) -> Response:
    """Return the response to a request that ended in `error`; what is not the user's to mend is logged."""
    if isinstance(error, HTTPException):
        return error_response(error.status_code, str(error.detail), path, error.headers)
    known = _known_status(error)
    if known is None:
        reference = uuid.uuid4().hex[:12]
        logger.error("request to %s failed (reference %s)", path, reference, exc_info=error)
        detail = f"something went wrong here that is not the request's fault; the server's log has it as {reference}"
        return error_response(500, detail, path)
    return error_response(known, without_paths(str(error)), path, _headers(known, error))


def status_of(error: ValueError | LlsflowError) -> int:
    """Return the status of what is the user's to mend."""
    return _known_status(error) or 400


def _known_status(error: Exception) -> int | None:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), None)


def error_response(status: int, detail: str, path: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the one body of every error."""
    if len(detail) > MOST_CHARACTERS:
        detail = f"{detail[:MOST_CHARACTERS]}…"
    body = Error(status=status, title=TITLES.get(status, "Error"), detail=detail, instance=path)
    # a name in it may be no proper Unicode: JSON's escapes carry that too
    content = json.dumps(body.model_dump())
    return Response(content, status, headers, "application/json")


def without_paths(detail: str) -> str:
    """Return a message without the places of this machine's folders."""
    folders = {str(home.home()): "LLSFLOW_HOME", str(Path.cwd()): ".", str(Path.home()): "~"}
    for folder in sorted(folders, key=len, reverse=True):
        if folder != os.sep:
            detail = detail.replace(folder, folders[folder])
    return detail


def _headers(status: int, error: Exception) -> dict[str, str]:
    if isinstance(error, BusyError):
        return {"Retry-After": str(RETRY_SECONDS)}
    if status == 409:
        # clients try a conflict again by themselves, and it would not go away
        return {"x-should-retry": "false"}
    if status == 503:
        return {"Retry-After": str(RETRY_SECONDS)}
    return {}

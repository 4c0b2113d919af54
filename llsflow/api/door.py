"""What every request passes on its way in, and every answer on its way out."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llsflow.api.access import Access
from llsflow.api.body import IGNORED, INCOMING, ignored_header
from llsflow.api.errors import answer

logger = logging.getLogger("llsflow.api")

KNOWN = "llsflow.known"
"""Key of a request's scope: whether the caller may see what the server holds."""

OLD_PATH = re.compile(r"^/v1/(?:(datasets|datasetio)|(?:agents|eval|post-training|inference))(?=/|$)")
"""Where clients before 0.3 look for what moved to /v1beta and /v1alpha."""


def present_path(path: str) -> str:
    """Return where a path of old clients leads today."""
    if match := OLD_PATH.match(path):
        return ("/v1beta" if match.group(1) else "/v1alpha") + path.removeprefix("/v1")
    return path


class Door:
    """ASGI middleware: access, old paths, one body for every error, and the header of ignored fields."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = str(scope["path"])
        begun = False

        async def send_on(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                _discard_body(scope)
                if fields := scope.get(IGNORED):
                    header = ignored_header(fields)
                    MutableHeaders(scope=message)["X-Ignored-Fields"] = header
                    logger.info("%s %s: unknown fields are ignored: %s", scope["method"], asked, header)
            await send(message)

        try:
            address = scope["client"][0] if scope.get("client") else ""
            scope[KNOWN] = self.access.check(asked, address, Headers(scope=scope))
            scope["path"] = present_path(asked)
            await self.app(scope, receive, send_on)
        except ClientDisconnect:
            logger.info("%s %s: the client went away", scope["method"], asked)
        except Exception as error:
            if begun:
                raise
            await answer(error, asked)(scope, receive, send_on)
        finally:
            _discard_body(scope)


def _discard_body(scope: Scope) -> None:
    if incoming := scope.get(INCOMING):
        incoming.discard()

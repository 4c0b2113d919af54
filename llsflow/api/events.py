"""Events as they come: server-sent, with comments while nothing comes, and ended when the reader goes away."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from pydantic_core import PydanticSerializationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llsflow.api.errors import HTTPError, status_of, without_paths
from llsflow.errors import LlsflowError
from llsflow.schema.base import Record

logger = logging.getLogger("llsflow.api")

HEARTBEAT_SECONDS = 15.0
"""Between two comments while nothing comes: clients give up after 60 seconds without a byte."""

MOST_WAITING = 64
"""Events that wait for a reader who is slow; what makes them waits then as well."""

T = TypeVar("T")


class EventStream(Response, Generic[T]):
    """An answer whose events come one by one.

    What fails is told within it: the status was sent with the first byte. When the reader goes away, `events` is
    closed, whether or not one was read. Never `[DONE]` nor `id:` lines: the official client reads neither.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[T], written: Callable[[T], bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.events, self.written = events, written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, up to the last or until nobody reads them."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            sending = asyncio.ensure_future(self._send(send))
            gone = asyncio.ensure_future(left(receive))
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                sending.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)
        finally:
            await _close(self.events)

    async def _send(self, send: Send) -> None:
        told = _told(self.events, self.written)
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)

        async def fill() -> None:
            async for part in told:
                await waiting.put(part)
            await waiting.put(None)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fill())
                await _drain(waiting, send)
        finally:
            await _close(told)


async def _drain(waiting: asyncio.Queue[bytes | None], send: Send) -> None:
    """Send what waits, up to None: all that is there at once, for each message to the server has its price."""
    more = True
    while more:
        parts = [await _next(waiting)]
        while not waiting.empty():
            parts.append(waiting.get_nowait())
        more = parts[-1] is not None
        body = b"".join(part for part in parts if part is not None)
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _next(waiting: asyncio.Queue[bytes | None]) -> bytes | None:
    """Return what comes next; a comment, where nothing came for long."""
    try:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await waiting.get()
    except TimeoutError:
        return b": still at it\n\n"


async def left(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(request: Request, events: AsyncIterator[T]) -> T | None:
    """Return the last of the events; None: the client went away, and they were closed.

    Raises:
        HTTPError, LlsflowError: what failed.
    """

    async def last() -> T | None:
        found = None
        try:
            async for event in events:
                found = event
        except ValueError as error:  # the model refuses the request, which a stream tells as well
            raise HTTPError(status_of(error), without_paths(str(error))) from error
        return found

    reading = asyncio.ensure_future(last())
    gone = asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        gone.cancel()
        reading.cancel()
        await asyncio.gather(reading, gone, return_exceptions=True)
        await _close(events)


async def _told(events: AsyncIterator[T], written: Callable[[T], bytes]) -> AsyncIterator[bytes]:
    """Yield the events, and as the last of them what failed."""
    try:
        async for one in events:
            yield written(one)
    except (ValueError, LlsflowError) as error:
        yield failure(status_of(error), without_paths(str(error)))
    except Exception as error:
        reference = uuid.uuid4().hex[:12]
        logger.error("a stream failed (reference %s)", reference, exc_info=error)
        yield failure(500, f"something went wrong here; the server's log has it as {reference}")
    finally:
        await _close(events)


def failure(status: int, message: str) -> bytes:
    """Return the event of a failure, as the reference server has it."""
    return data({"error": {"message": f"{status}: {message}", "code": status}})


def event(payload: Record) -> bytes:
    """Return the event of a record."""
    try:
        text = payload.model_dump_json()
    except PydanticSerializationError:
        # text that is no proper Unicode: JSON's escapes carry it
        text = json.dumps(payload.model_dump(mode="json"), separators=(",", ":"))
    return b'data: {"event":{"payload":' + text.encode() + b"}}\n\n"


def data(value: Any) -> bytes:
    """Return an event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


async def _close(events: AsyncIterator[Any]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()

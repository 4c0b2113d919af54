"""Streams of events: comments while nothing comes, and an end that the events are told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.types import Message

from llsflow.api import events
from llsflow.api.events import EventStream


async def _read(made: AsyncIterator[bytes], take: Callable[[bytes, asyncio.Event], None]) -> list[bytes]:
    """Read a stream to its end, or until `take` says that the reader has gone."""
    parts: list[bytes] = []
    gone = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            parts.append(message["body"])
            take(message["body"], gone)

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await EventStream(made)({"type": "http"}, receive, send)
    return parts


def test_a_comment_comes_whenever_nothing_came_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)

    async def main() -> list[bytes]:
        beaten = asyncio.Semaphore(0)

        async def made() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            for _ in range(2):
                await beaten.acquire()
            yield b"data: 2\n\n"
            yield b"data: 3\n\n"

        return await _read(made(), lambda part, _: beaten.release() if part.startswith(b":") else None)

    comment = b": still at it\n\n"
    assert asyncio.run(main()) == [b"data: 1\n\n", comment, comment, b"data: 2\n\n", b"data: 3\n\n", b""]


@pytest.mark.parametrize("waiting", [True, False])
def test_events_are_closed_when_their_reader_goes_away(*, waiting: bool) -> None:
    ends: list[str] = []

    async def made() -> AsyncIterator[bytes]:
        try:
            for number in range(100_000):
                yield b"data: %d\n\n" % number
                await (asyncio.Event().wait() if waiting and number else asyncio.sleep(0))
        finally:
            ends.append("closed")

    async def main() -> list[bytes]:
        return await _read(made(), lambda part, gone: gone.set() if b"1" in part else None)

    parts = asyncio.run(main())
    assert ends == ["closed"]
    assert 2 <= len(parts) < 100
    assert b"" not in parts

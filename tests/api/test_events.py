"""Streams of events: comments while nothing comes, and an end that the events are told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.types import Message

from llsflow.api import events
from llsflow.api.events import EventStream


async def _read(
    made: AsyncIterator[bytes], take: Callable[[bytes, asyncio.Event], None], *, hold: bool = False
) -> list[bytes]:
    """Read a stream to its end, or until `take` says that the reader has gone; `hold`: it takes nothing then."""
    parts: list[bytes] = []
    gone = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            parts.append(message["body"])
            take(message["body"], gone)
            if hold:
                await asyncio.Event().wait()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await EventStream(made, bytes)({"type": "http"}, receive, send)
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
    assert asyncio.run(main()) == [b"data: 1\n\n", comment, comment, b"data: 2\n\ndata: 3\n\n"]


@pytest.mark.parametrize("stuck", ["making", "sending"])
def test_events_are_closed_when_their_reader_goes_away(stuck: str) -> None:
    ends: list[str] = []

    async def made() -> AsyncIterator[bytes]:
        try:
            yield b"data: 0\n\n"
            if stuck == "making":
                await asyncio.Event().wait()
            while True:
                yield b"data: 1\n\n"
        finally:
            ends.append("closed")

    async def main() -> tuple[list[bytes], list[str]]:
        parts = await _read(made(), lambda _, gone: gone.set(), hold=stuck == "sending")
        return parts, [*ends]  # before the loop closes what nobody did

    (part,), closed = asyncio.run(main())
    assert part.startswith(b"data: 0\n\n")
    assert len(part) <= 9 * (events.MOST_WAITING + 1)
    assert closed == ["closed"]


def test_events_are_closed_when_their_reader_goes_away_before_the_first() -> None:
    class Made:
        closed = False

        def __aiter__(self) -> Made:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def aclose(self) -> None:
            self.closed = True

    async def main() -> bool:
        made = Made()

        async def send(_: Message) -> None:
            return

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        await EventStream(made, bytes)({"type": "http"}, receive, send)
        return made.closed

    assert asyncio.run(main())

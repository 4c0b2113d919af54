"""An endpoint's connections: used again once a stream was read to its end, and given up where it does not end."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from llsflow.models.endpoint import ENDING_SECONDS, Channel
from llsflow.schema.models import Endpoint

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b'data: {"said": "yes"}\n\ndata: [DONE]\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENTS), EVENTS)


class _Server(asyncio.Protocol):
    """Streams the events to each request, in one of its connections; the end of the answer comes behind them."""

    def __init__(self, connections: list[asyncio.Transport], *, ends: bool) -> None:
        self.connections = connections
        self.ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.append(transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self.transport.write(HEAD + CHUNK)
            if self.ends:
                asyncio.get_running_loop().call_soon(self.transport.write, b"0\r\n\r\n")


async def _streams(count: int, *, ends: bool) -> tuple[list[object], int, float]:
    """Return the events of streams one after another, on how many connections they came, and in what time."""
    connections: list[asyncio.Transport] = []
    said: list[object] = []
    make = partial(_Server, connections, ends=ends)
    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as server:
        channel = Channel(Endpoint(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"))
        began = time.perf_counter()
        async with channel.open() as client:
            for _ in range(count):
                async with channel.stream(client, {}, "it") as events:
                    said += [event async for event in events]
        seconds = time.perf_counter() - began
        for connection in connections:
            connection.abort()
    return said, len(connections), seconds


def test_streams_one_after_another_share_a_connection() -> None:
    said, connections, _ = asyncio.run(_streams(3, ends=True))
    assert said == [{"said": "yes"}] * 3
    assert connections == 1


def test_a_stream_that_does_not_end_is_left() -> None:
    said, connections, seconds = asyncio.run(_streams(2, ends=False))
    assert said == [{"said": "yes"}] * 2
    assert connections == 2
    assert 2 * ENDING_SECONDS < seconds < 10

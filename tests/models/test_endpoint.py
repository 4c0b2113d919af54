"""An endpoint's connections: used again once a stream was read to its end; and what is told of those that break."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from llsflow.errors import UnavailableError
from llsflow.models import endpoint
from llsflow.models.endpoint import COMPLETION, ENDING_SECONDS, Channel, Unanswered
from llsflow.schema.models import Endpoint
from tests.http_server import Handler, serve
from tests.patience import PATIENCE_SECONDS

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


def test_streams_one_after_another_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "ENDING_SECONDS", PATIENCE_SECONDS)
    said, connections, _ = asyncio.run(_streams(3, ends=True))
    assert said == [{"said": "yes"}] * 3
    assert connections == 1


def test_a_stream_that_does_not_end_is_left() -> None:
    said, connections, seconds = asyncio.run(_streams(2, ends=False))
    assert said == [{"said": "yes"}] * 2
    assert connections == 2
    assert seconds > 2 * ENDING_SECONDS


class _Says(asyncio.Protocol):
    """Answers each request with the same bytes, and goes away."""

    def __init__(self, asked: list[bytes], answer: bytes) -> None:
        self.asked, self.answer = asked, answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.asked.append(data)
        if data.endswith(b"}"):
            self.transport.write(self.answer)
            self.transport.close()


async def _told(answer: bytes) -> tuple[str, list[bytes]]:
    """Return what is told of an answer, and what was asked."""
    asked: list[bytes] = []
    async with await asyncio.get_running_loop().create_server(partial(_Says, asked, answer), "127.0.0.1", 0) as server:
        channel = Channel(Endpoint(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", retries=0))
        async with channel.open() as client:
            try:
                async with channel.stream(client, {"said": "\ud800 é"}, "it") as events:
                    async for _ in events:
                        pass
            except (UnavailableError, Unanswered, ValueError) as error:
                return str(error), asked
    raise AssertionError("it was whole")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (HEAD + CHUNK.replace(b"[DONE]", b"{}    "), "it broke off in the middle of its answer: "),
        (HEAD + CHUNK.replace(b'{"said"', b"{'said'"), "it streams something that is no JSON"),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 307 There\r\nLocation: /v1/other\r\nContent-Length: 0\r\n\r\n", "HTTP 307: HTTP 307"),
        (b"", "Server disconnected"),
    ],
)
def test_what_is_no_whole_answer_is_told(answer: bytes, told: str) -> None:
    found, asked = asyncio.run(_told(answer))
    assert found.startswith(told)
    assert sum(part.startswith(b"POST /v1/chat/completions ") for part in asked) == 1
    assert b'{"said":"\\ud800 \\u00e9","stream":true}' in b"".join(asked)


class _Trickles(asyncio.Protocol):
    """Answers with a space every 50 ms, and never with more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            self._next()

    def _next(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b" ")
            asyncio.get_running_loop().call_later(0.05, self._next)


def test_the_time_is_for_a_whole_answer() -> None:
    async def main() -> None:
        async with await asyncio.get_running_loop().create_server(_Trickles, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            channel = Channel(Endpoint(base_url=url, retries=0, timeout_seconds=0.3))
            async with channel.open() as client:
                await channel.ask(client, COMPLETION, {}, "it")

    with pytest.raises(Unanswered, match=r"^no answer within 0\.3 s$"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://127.0.0.1:9/v1", r"^no connection to 127\.0\.0\.1:9 \(Connection refused\)$"),
        ("http://nowhere.invalid/v1", r"^the host nowhere\.invalid is not known$"),
    ],
)
def test_an_endpoint_that_is_not_there(address: str, told: str) -> None:
    async def main() -> None:
        channel = Channel(Endpoint(base_url=address, retries=0))
        async with channel.open() as client, channel.stream(client, {}, "it"):
            pass

    with pytest.raises(Unanswered, match=told):
        asyncio.run(main())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_whose_certificate_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(certificate), "-nodes"]
    named = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *named], check=True, capture_output=True)

    class Yes(Handler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"message": {"content": "yes"}}]}')

    async def answer(port: int) -> str:
        channel = Channel(Endpoint(base_url=f"https://127.0.0.1:{port}/v1", retries=0))
        async with channel.open() as client:
            return (await channel.ask(client, COMPLETION, {}, "it")).text

    with serve(Yes, certificate, key) as port:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(Unanswered, match="certificate verify failed"):
            asyncio.run(answer(port))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert asyncio.run(answer(port)) == "yes"

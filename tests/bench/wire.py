"""An HTTP client that costs next to nothing: what is measured is the server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

PATIENCE_SECONDS = 120.0


class Wire:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._space = bytearray(1 << 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            RuntimeError: the answer is none of success.
        """
        self._socket.sendall(request)
        head, body = self._receive(), b""
        while (split := head.find(b"\r\n\r\n")) < 0:
            head += self._receive()
        head, body = head[:split].lower(), head[split + 4 :]
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        parts, missing = [body], length - len(body)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        body = b"".join(parts)
        if not head.startswith(b"http/1.1 2"):
            raise RuntimeError(f"{request[:80]!r}: {head.splitlines()[0].decode()}: {body[:500].decode()}")
        return body

    def _receive(self) -> bytes:
        size = self._socket.recv_into(self._space)
        if not size:
            raise ConnectionError("the server closed the connection")
        return bytes(memoryview(self._space)[:size])

    def timed(self, request: bytes) -> float:
        """Return the seconds from the first byte out to the last byte in."""
        began = time.perf_counter()
        self.ask(request)
        return time.perf_counter() - began

    def marked(self, request: bytes, *marks: bytes) -> list[float]:
        """Return the seconds from the first byte out to each mark of a streamed answer, in their order, and to its end.

        Raises:
            RuntimeError: the answer is none of success, or ends without them.
        """
        began, came, times, place = time.perf_counter(), b"", [], 0
        self._socket.sendall(request)
        wanted = [*marks, b"\r\n0\r\n\r\n"]
        while wanted:
            came += self._receive()
            while wanted and (found := came.find(wanted[0], place)) >= 0:
                times.append(time.perf_counter() - began)
                place = found + len(wanted.pop(0))
            if not came.startswith(b"HTTP/1.1 2") or (len(wanted) > 1 and came.endswith(wanted[-1])):
                raise RuntimeError(f"{request[:80]!r}: {came[-500:].decode()}")
        return times

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer as a value."""
        return json.loads(self.ask(request(method, path, body)) or b"null")


def request(method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
    """Return a whole request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    data = json.dumps(body).encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

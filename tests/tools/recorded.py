"""A service that answers as it is told: real HTTP on the loopback address; it keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import Handler, serve


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: Any


@dataclass(frozen=True)
class Reply:
    """An answer: bytes as they are, anything else as JSON."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """Return it as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Recorded:
    """A service under way."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def recorded(reply: Reply | Callable[[Asked], Reply]) -> Iterator[Recorded]:
    """Yield a service that answers every request so."""
    service = Recorded()

    class Replies(Handler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            parts = urlsplit(self.path)
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(parts.query)
            asked = Asked(self.command, parts.path, query, headers, json.loads(sent) if sent else None)
            service.asked.append(asked)
            said = reply(asked) if callable(reply) else reply
            self.send_response(said.status)
            for name, value in {**said.headers, "Content-Length": str(len(said.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.content)

        do_GET = do_POST = answer

    with serve(Replies) as port:
        service.url = f"http://127.0.0.1:{port}/v1"
        yield service

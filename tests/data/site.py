"""A web site on this machine, for fetches that are allowed to come here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.http_server import Handler, serve

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer that is always the same; `_` in a header's name stands for `-`."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return write


@contextmanager
def site(pages: dict[str, Answer], certificate: Path | None = None, key: Path | None = None) -> Iterator[int]:
    """Serve pages by path on a loopback port, by https where there is a certificate."""

    class Pages(Handler):
        def do_GET(self) -> None:
            pages.get(self.path, answer(404))(self)

        do_HEAD = do_GET

    with serve(Pages, certificate, key) as port:
        yield port

"""A web site on this machine, for fetches that are allowed to come here."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages.get(self.path, answer(404))(self)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serve(Handler, certificate, key) as port:
        yield port


@contextmanager
def serve(
    handler: type[BaseHTTPRequestHandler], certificate: Path | None = None, key: Path | None = None
) -> Iterator[int]:
    """Serve on a loopback port until the block is left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # a refused handshake is meant
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

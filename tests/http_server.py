"""An HTTP server on the loopback address, for as long as a block lasts."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers requests, and says nothing of them on the terminal."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # more than come at once: connections beyond it are reset

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of who went away in the middle of an answer, or refused the certificate."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


@contextmanager
def serve(
    handler: type[BaseHTTPRequestHandler], certificate: Path | None = None, key: Path | None = None
) -> Iterator[int]:
    """Yield the port of a server, by https where there is a certificate."""
    server = _Server(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

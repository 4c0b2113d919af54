"""Fetches: what is taken, and everything that is refused, from a site on this machine."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from llsflow.data.fetch import fetch
from llsflow.errors import DataError
from llsflow.schema.server import FetchConfig
from tests.data.site import answer, site
from tests.patience import PATIENCE_SECONDS

HERE = FetchConfig(allow_hosts=["127.0.0.1"])


def body(url: str, config: FetchConfig = HERE) -> bytes:
    with fetch(url, config) as fetched:
        return fetched.file.read()


@contextlib.contextmanager
def page(path: str = "/x.jsonl", **pages: object) -> Iterator[str]:
    """Serve one page and give its address."""
    with site({path: pages["answer"]}) as port:  # type: ignore[dict-item]
        yield f"http://127.0.0.1:{port}{path}"


def test_an_answer_is_a_file_that_is_gone_afterwards(llsflow_home: Path) -> None:
    with (
        page(
            "/data/x.jsonl?token=s3", answer=answer(200, b"rows", Content_Type="Application/JSONL; charset=utf-8")
        ) as url,
        fetch(url, HERE) as fetched,
    ):
        assert fetched.file.read() == b"rows"
        assert (fetched.content_type, fetched.file_name) == ("application/jsonl", "x.jsonl")
        assert fetched.name == "http://127.0.0.1/data/x.jsonl"
    assert not any(llsflow_home.iterdir())


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with page(answer=answer(200, b"rows")) as url:
        assert body(url) == b"rows"


def test_gzip_is_left_to_who_reads_the_file() -> None:
    packed = gzip.compress(b"rows")
    with page(answer=answer(200, packed, Content_Encoding="gzip")) as url:
        assert body(url) == packed


def test_redirects_are_followed_five_times() -> None:
    pages = {f"/{n}": answer(302, b"", Location=f"/{n - 1}") for n in range(1, 7)}
    with site({**pages, "/0": answer(200, b"rows")}) as port:
        assert body(f"http://127.0.0.1:{port}/5") == b"rows"
        with pytest.raises(DataError, match="redirects more than 5 times"):
            body(f"http://127.0.0.1:{port}/6")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("http://localhost:1/x", "localhost is asked by http: https is allowed"),
        ("https://localhost:1/x", "localhost is at .*, which is not a public address"),
        ("https://169.254.169.254/latest/meta-data", "which is not a public address"),
        ("file:///etc/passwd", "it leads to file://: https is allowed"),
        ("https://user:secret@host.example/x", "it holds a user name or password"),
        ("https://[::1", "is not a URL"),
    ],
)
def test_redirects_are_checked_like_the_first_address(target: str, sentence: str) -> None:
    with page(answer=answer(302, b"", Location=target)) as url, pytest.raises(DataError, match=sentence) as caught:
        body(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://host.example/x", "asked by http: https is allowed, http for server.fetch.allow_hosts only"),
        ("https://127.0.0.1/x", "127.0.0.1 is at 127.0.0.1, which is not a public address"),
        ("https://[::ffff:127.0.0.1]/x", "which is not a public address"),
        ("https://user@host.example/x", "it holds a user name or password"),
        ("https:///x", "names no host"),
        ("https://host.example:99999/x", "is not a URL"),
        ("https://host.example/" + "x" * 10_000, "it is too long"),
    ],
)
def test_addresses_that_are_refused(url: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        body(url, FetchConfig())


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DataError, match=r"cannot be fetched: the host host.example is not known"):
        body("https://host.example/x", FetchConfig())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_certificate_is_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    settings = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2", "-nodes"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *settings], check=True, capture_output=True)
    config = FetchConfig(allow_hosts=["localhost", "127.0.0.1"])
    with site({"/x": answer(200, b"rows")}, certificate, key) as port:
        with pytest.raises(DataError, match="certificate verify failed"):
            body(f"https://localhost:{port}/x", config)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert body(f"https://localhost:{port}/x", config) == b"rows"
        with pytest.raises(DataError, match="IP address mismatch"):
            body(f"https://127.0.0.1:{port}/x", config)


@pytest.mark.parametrize("length", [True, False])
def test_an_answer_over_the_limit_is_left_early(length: bool) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 65536)

    with page(answer=endless) as url, pytest.raises(DataError, match="it is over 1,000,000 bytes"):
        body(url, HERE.model_copy(update={"max_bytes": 1_000_000}))


@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_trickles_ends_at_the_deadline(part: str) -> None:
    over = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.1 200 OK\r\n" + (b"" if part == "headers" else b"\r\n")
        handler.wfile.write(start + b"X-Slow: ")
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                handler.wfile.write(b"x")

    with page(answer=trickle) as url:
        try:
            with pytest.raises(DataError, match="cannot be fetched"):
                body(url, HERE.model_copy(update={"timeout_seconds": 0.3}))
        finally:
            over.set()


def test_a_server_that_says_nothing_is_left_at_the_deadline() -> None:
    over = threading.Event()
    with page(answer=lambda _: over.wait(PATIENCE_SECONDS)) as url:
        try:
            with pytest.raises(DataError, match=r"cannot be fetched: .*time"):
                body(url, HERE.model_copy(update={"timeout_seconds": 0.3}))
        finally:
            over.set()


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (404, {}, "it answered 404, not 200"),
        (206, {}, "it answered 206, not 200"),
        (302, {}, "it answered 302, not 200"),
        (200, {"Content_Encoding": "br"}, "it answered in the encoding br"),
    ],
)
def test_answers_that_are_no_file(status: int, headers: dict[str, str], sentence: str) -> None:
    with page(answer=answer(status, b"", **headers)) as url, pytest.raises(DataError, match=sentence):
        body(url)

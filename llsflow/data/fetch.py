"""Outgoing fetches: https, to public addresses, within limits of size and time, also after every redirect.

Connections are made directly: behind a proxy it would be the proxy that looks the names up, and no check of addresses
would hold. So proxy settings of the environment have no effect here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import httpcore
import httpx

from llsflow import home
from llsflow.data.files import unnamed_file
from llsflow.data.guard import Deadline, GuardedBackend, RefusedError
from llsflow.errors import DataError, Mistake
from llsflow.schema.server import FetchConfig

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_URL_CHARACTERS = 8192
# gzip is unpacked by who reads the file, within the same limit; nothing else is accepted
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "llsflow"}


@dataclass(frozen=True)
class Fetched:
    """An answer in full."""

    file: IO[bytes]
    """At its start; gone when the fetch is left."""
    content_type: str
    """Lower case, without parameters; empty: not said."""
    file_name: str
    """Last part of the path that was asked for, before redirects."""
    name: str
    """How messages call it: without what follows `?`, which may be a signature."""


@contextmanager
def fetch(url: str, config: FetchConfig) -> Iterator[Fetched]:
    """Give what a URL answers, as a file.

    Raises:
        DataError: the URL or an address behind it is refused, it does not answer in time, or the answer is no file or
            too large.
    """
    target = _parsed(url)
    name = _shown(target)
    try:
        with unnamed_file() as file:
            content_type = _download(target, config, file)
            file.seek(0)
            yield Fetched(file, content_type, target.path.rpartition("/")[2], name)
    except RefusedError as error:
        raise DataError([Mistake(name, f"is refused: {error}")]) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        words = str(error) or type(error).__name__
        raise DataError([Mistake(name, f"cannot be fetched: {words}")]) from None


def _download(target: httpx.URL, config: FetchConfig, file: IO[bytes]) -> str:
    """Write the answer into the file and return its content type."""
    backend = GuardedBackend(config.allow_hosts, Deadline(time.monotonic() + config.timeout_seconds))
    context = httpx.create_ssl_context()
    with httpcore.ConnectionPool(ssl_context=context, network_backend=backend) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            _refuse(target, config)
            # parsed once, here: what was checked is what is asked for
            asked = httpcore.URL(
                scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
            )
            headers = [("host", target.netloc.decode("ascii")), *_HEADERS.items()]
            with pool.stream("GET", asked, headers=headers) as response:
                answered = httpx.Headers(response.headers)
                if response.status in _REDIRECTS and "location" in answered:
                    target = target.join(_parsed(answered["location"], relative=True))
                    continue
                _take(response, answered, config, file)
                return str(answered.get("content-type", "")).partition(";")[0].strip().lower()
    raise RefusedError(f"it redirects more than {MAX_REDIRECTS} times")


def _take(response: httpcore.Response, answered: httpx.Headers, config: FetchConfig, file: IO[bytes]) -> None:
    if response.status != 200:
        raise RefusedError(f"it answered {response.status}, not 200")
    if (coding := answered.get("content-encoding", "identity").lower()) not in ("identity", "gzip", "x-gzip"):
        raise RefusedError(f"it answered in the encoding {coding}, which was not asked for")
    taken = 0
    with home.storage_errors(home.home()):
        for chunk in response.iter_stream():
            taken += len(chunk)
            if taken > config.max_bytes:
                raise RefusedError(f"it is over {config.max_bytes:,} bytes: that is server.fetch.max_bytes")
            file.write(chunk)


def _parsed(url: str, *, relative: bool = False) -> httpx.URL:
    try:
        if len(url) > _MAX_URL_CHARACTERS:
            raise httpx.InvalidURL("it is too long")
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise DataError([Mistake(url[:80], f"is not a URL: {error}")]) from None
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise DataError([Mistake(url[:80], f"is not a URL: there is no port {parsed.port}")])
    if not (relative or parsed.host):
        raise DataError([Mistake(url[:80], "names no host: write https://HOST/PATH")])
    return parsed


def _refuse(target: httpx.URL, config: FetchConfig) -> None:
    allowed = {host.lower() for host in config.allow_hosts}
    if target.scheme not in ("https", "http"):
        raise RefusedError(f"it leads to {target.scheme or 'no scheme'}://: https is allowed")
    if target.scheme == "http" and target.host.lower() not in allowed:
        raise RefusedError(f"{target.host} is asked by http: https is allowed, http for server.fetch.allow_hosts only")
    if target.userinfo:
        raise RefusedError("it holds a user name or password: addresses are shown and stored, so leave them out")


def _shown(target: httpx.URL) -> str:
    return f"{target.scheme}://{target.host}{target.path}"

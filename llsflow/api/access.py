"""Who may come in, and how often: keys, loopback, and a limit on requests."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from llsflow.api.errors import HTTPError
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.server import ServerConfig

KEY_VARIABLE = "LLSFLOW_API_KEY"
SHA256 = re.compile(r"[0-9a-f]{64}")
OPEN_PATHS = frozenset({"/v1/health", "/v1/version", "/openapi.json", "/docs", "/"})
"""They tell nothing of what the server holds."""

MOST_CALLERS = 10_000
"""Whose pace is remembered; the one that was not seen longest is forgotten."""


def check_may_listen(server: ServerConfig) -> None:
    """Refuse to listen where others can reach the server and nobody needs a key.

    Raises:
        ConfigError: there is no key, or the file of keys cannot be read.
    """
    if not read_keys(server) and not is_loopback(server.host):
        message = (
            f"{server.host} can be reached from other machines, and there is no key: set {KEY_VARIABLE} or "
            "server.api_keys_file, or listen on 127.0.0.1"
        )
        raise ConfigError([Mistake("server.host", message)])


def read_keys(server: ServerConfig) -> dict[str, str]:
    """Return the name of every key by its sha256 (hex).

    Raises:
        ConfigError: the file of keys cannot be read, with the number of every line that is none.
    """
    keys: dict[str, str] = {}
    if own := os.environ.get(KEY_VARIABLE):
        keys[hashlib.sha256(own.encode()).hexdigest()] = KEY_VARIABLE
    if server.api_keys_file is None:
        return keys
    where = "server.api_keys_file"
    try:
        lines = Path(server.api_keys_file).expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError([Mistake(where, f"{server.api_keys_file} cannot be read: {why}")]) from None
    mistakes = []
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if SHA256.fullmatch(digest.lower()):
            keys[digest.lower()] = name.strip() or f"line {number}"
        elif digest and not digest.startswith("#"):
            message = f"line {number}: found no sha256 (64 hex digits) at its start: printf %s KEY | sha256sum"
            mistakes.append(Mistake(where, message))
    if mistakes:
        raise ConfigError(mistakes)
    return keys


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine and no other."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass
class Pace:
    """A token bucket for each caller: `per_minute` requests, in a burst or spread."""

    per_minute: int
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_seconds(self, caller: str, now: float | None = None) -> float:
        """Count a request, and return 0, or how long the caller has to wait until one is free."""
        if not self.per_minute:
            return 0.0
        now = time.monotonic() if now is None else now
        per_second = self.per_minute / 60
        with self._lock:
            tokens, before = self._buckets.pop(caller, (float(self.per_minute), now))
            tokens = min(self.per_minute, tokens + (now - before) * per_second)
            free = tokens >= 1
            self._buckets[caller] = (tokens - free, now)
            if len(self._buckets) > MOST_CALLERS:
                self._buckets.popitem(last=False)
        return 0.0 if free else (1 - tokens) / per_second


class Access:
    """The check that every request passes."""

    def __init__(self, server: ServerConfig) -> None:
        self._keys = read_keys(server)
        self._own_host = server.host.strip("[]").lower()
        self._pace = Pace(server.requests_per_minute)

    def check(self, path: str, address: str, headers: Mapping[str, str]) -> bool:
        """Return whether the caller may see what the server holds; on an open path anyone may come this far.

        Raises:
            HTTPError: 401, 403 or 429, with the reason.
        """
        key = self._key(headers.get("authorization", ""))
        wait = self._pace.wait_seconds(key or f"address {address}")
        if wait:
            detail = f"more than {self._pace.per_minute} requests in a minute: wait {wait:.1f} seconds"
            raise HTTPError(429, detail, {"Retry-After": str(int(wait) + 1)})
        if not self._keys:
            self._same_site(headers)
            return True
        if key is None and path not in OPEN_PATHS:
            detail = "a key is needed: send the header 'Authorization: Bearer KEY'"
            if headers.get("authorization"):
                detail = "the key of the Authorization header is not known here: send 'Authorization: Bearer KEY'"
            raise HTTPError(401, detail, {"WWW-Authenticate": 'Bearer realm="llsflow"'})
        return key is not None

    def _key(self, authorization: str) -> str | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known in self._keys:  # all of them, whichever it is: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = known
        return found

    def _same_site(self, headers: Mapping[str, str]) -> None:
        """Refuse what a web page of another site sends through the user's browser: here nobody needs a key."""
        host = _host_name(f"//{headers.get('host', '')}")
        if not is_loopback(host) and host != self._own_host:
            raise HTTPError(403, f"Host: found {host[:100]!r}, allowed without a key: localhost, 127.0.0.1, [::1]")
        origin = headers.get("origin")
        if origin is not None and not is_loopback(_host_name(origin)):
            raise HTTPError(403, f"Origin: found {origin[:100]!r}, allowed without a key: pages of this machine")


def _host_name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return url

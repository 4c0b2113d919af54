"""Connections to public addresses only: the address that is connected to is the one that was looked at."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore

from llsflow.data.addresses import is_public

IDLE_SECONDS = 30.0
"""A server that says nothing for so long is given up."""


class RefusedError(Exception):
    """The address is not one to connect to."""


def addresses_of(host: str, port: int, *, anywhere: bool) -> list[str]:
    """Return the IP addresses of a host, all of which are public unless it may be `anywhere`.

    Raises:
        RefusedError: one of them is not.
        httpcore.ConnectError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise httpcore.ConnectError(f"the host {host} is not known") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    inside = [address for address in addresses if not is_public(address)]
    if inside and not anywhere:
        raise RefusedError(
            f"{host} is at {inside[0]}, which is not a public address: "
            "only hosts in server.fetch.allow_hosts may be at private or loopback addresses"
        )
    return addresses


@dataclass(frozen=True)
class Deadline:
    """A moment at which everything ends."""

    at: float
    """By `time.monotonic`, in seconds."""

    def cut(self, timeout: float | None) -> float:
        """Return the seconds that one operation may take.

        Raises:
            httpcore.TimeoutException: there are none left.
        """
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException("took longer than server.fetch.timeout_seconds in all")
        return min(left, IDLE_SECONDS if timeout is None else timeout)


class GuardedBackend(httpcore.NetworkBackend):
    """Looks a host's addresses up once, checks them, and connects to what was checked."""

    def __init__(self, allow_hosts: Collection[str], deadline: Deadline) -> None:
        self._allow_hosts = {host.lower() for host in allow_hosts}
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers."""
        failure: Exception = httpcore.ConnectError(f"the host {host} is not known")
        for address in addresses_of(host, port, anywhere=host.lower() in self._allow_hosts):
            try:
                stream = self._backend.connect_tcp(address, port, self._deadline.cut(timeout))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every operation ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # the name, not the address: the certificate is checked against it
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

"""Which addresses are public, and that what is connected to is what was looked at."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpcore
import pytest

from llsflow.data.guard import Deadline, GuardedBackend, RefusedError, addresses_of, is_public
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",  # noqa: S104 - refused
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "::1"])
def test_however_loopback_is_written_it_is_refused(host: str) -> None:
    with pytest.raises(RefusedError, match="which is not a public address"):
        addresses_of(host, 443, anywhere=False)


def named(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Have names be at these addresses: at each lookup the next."""
    lookups = iter(answers)

    def look(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(lookups)]

    monkeypatch.setattr(socket, "getaddrinfo", look)


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(RefusedError, match=r"host.example is at 10.0.0.1"):
        addresses_of("host.example", 443, anywhere=False)


def test_a_name_that_changes_its_address_is_not_looked_up_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second lookup would be of the loopback address: the connection must go to what was checked."""
    named(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    asked: list[str] = []

    def connect(self: object, host: str, port: int, timeout: float | None = None, **_: Any) -> Any:
        asked.append(host)
        raise httpcore.ConnectError("nobody is there")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(httpcore.ConnectError, match="nobody is there"):
        GuardedBackend([], Deadline(time.monotonic() + PATIENCE_SECONDS)).connect_tcp("host.example", 443)
    assert asked == ["8.8.8.8"]


def test_names_that_may_be_anywhere_are_taken_without_case() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        backend = GuardedBackend(["LocalHost"], Deadline(time.monotonic() + PATIENCE_SECONDS))
        backend.connect_tcp("localhost", server.getsockname()[1]).close()


def test_after_the_deadline_nothing_goes_on() -> None:
    with pytest.raises(httpcore.TimeoutException, match="timeout_seconds"):
        Deadline(time.monotonic() - 1).cut(None)

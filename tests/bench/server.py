"""The servers that are measured, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wire import Wire

HERE = Path(__file__).parent
LLSFLOW = (sys.executable, "-c", "import sys; from llsflow.cli import main; sys.exit(main())")
PATIENCE_SECONDS = 120.0
QUIET_SECONDS = 3.0
"""After everything is up, before the first measurement."""


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], port: int, folder: Path, log: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Give a server that listens, and end it with all that it started."""
    with (folder / log).open("ab") as output:
        home = {"LLSFLOW_HOME": str(folder / "outputs"), **(environment or {})}
        process = subprocess.Popen([str(word) for word in command], cwd=folder, env={**os.environ, **home},
                                   stdout=output, stderr=output)  # fmt: skip
    try:
        connected(port, process).close()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    """Return a connection to a server as soon as it listens.

    Raises:
        SystemExit: it ended instead.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} does not answer")
        time.sleep(0.002)


@contextlib.contextmanager
def ours(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """Give the port and the process id of `llsflow serve` once every part of it is up."""
    port = free_port()
    command = (*LLSFLOW, "serve", f"server.port={port}", f"server.data_roots=[{folder}]")
    with running(command, port, folder, "ours.log", environment) as process:
        with Wire(port) as wire:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while any(part["state"] != "ok" for part in wire.json("GET", "/v1/health")["parts"].values()):
                if time.monotonic() > deadline:
                    raise SystemExit(f"not all parts came up: {wire.json('GET', '/v1/health')}")
                time.sleep(0.2)
        time.sleep(QUIET_SECONDS)
        yield port, process.pid


@contextlib.contextmanager
def yardstick(folder: Path, first_row: int) -> Iterator[int]:
    """Give the port of the bare server."""
    port = free_port()
    command = [sys.executable, HERE / "api_yardstick.py", str(port), str(first_row), folder / "bare.jsonl"]
    with running(command, port, folder, "bare.log"):
        yield port


def memory(pid: int) -> int:
    """Return the resident bytes of a process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return 0
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

"""The MLflow page: a server on loopback over our own store, one per LLSFLOW_HOME, only for looking."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llsflow.errors import UnavailableError
from llsflow.home import home, locked, read_json, write_json
from llsflow.tracking.client import is_server, quiet_environment, shown

START_SECONDS = 120.0
"""How long the server may take to answer: 5 to 13 s on two cores, more on a busy machine."""


@dataclass(frozen=True)
class Server:
    """A page that answers at `url`."""

    url: str
    pid: int | None
    """Process of ours; None for a server that is somebody else's."""
    reused: bool

    def lives(self) -> bool:
        """Return whether its process runs; somebody else's counts as running."""
        return self.pid is None or _process_runs(self.pid)

    def stop(self) -> None:
        """End the server, if it is ours."""
        if self.pid is None:
            return
        with locked("mlflow-server"):
            _end(self.pid)
            record = read_json(_record())
            if record and record.get("pid") == self.pid:
                _record().unlink(missing_ok=True)


def serve_store(uri: str, host: str, port: int) -> Server:
    """Return the page over the store `uri`, which exists: the running one, or a new one on a free port.

    Raises:
        UnavailableError: the server does not start.
    """
    if is_server(uri):
        return Server(uri, None, reused=True)
    with locked("mlflow-server"):
        record = _alive(uri)
        if record:
            return Server(str(record["url"]), int(record["pid"]), reused=True)
        return _start(uri, host, _free_port(host, port))


def running_page() -> Server | None:
    """Return this home's running page, or None."""
    record = _alive(None)
    return Server(str(record["url"]), int(record["pid"]), reused=True) if record else None


def _record() -> Path:
    return home() / "mlflow" / "server.json"


def _log() -> Path:
    return home() / "mlflow" / "server.log"


def _alive(uri: str | None) -> dict[str, Any] | None:
    record = read_json(_record())
    if not isinstance(record, dict) or (uri is not None and record.get("uri") != uri):
        return None
    if not _process_runs(int(record["pid"])) or not healthy(str(record["url"])):
        return None
    return record


def _process_runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        # one of our own children that ended stays a zombie until it is waited for
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def healthy(url: str) -> bool:
    """Say whether an MLflow server answers at `url`."""
    import httpx

    try:
        return httpx.get(f"{url}/health", timeout=10.0, trust_env=False).text == "OK"
    except httpx.HTTPError:
        return False


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return int(probe.getsockname()[1])
    raise UnavailableError(f"no port is free on {host} for the MLflow page: choose another --host")


def _start(uri: str, host: str, port: int) -> Server:
    arguments = ["--backend-store-uri", uri, "--artifacts-destination", str(home() / "mlflow" / "artifacts")]
    arguments += ["--host", host, "--port", str(port), "--workers", "1"]
    environment = {**os.environ, **quiet_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with _log().open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=home() / "mlflow",
            start_new_session=True,
        )
    url = f"http://{host}:{port}"
    deadline = time.monotonic() + START_SECONDS
    try:
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"the MLflow page over {shown(uri)} does not start: see {_log()}")
            time.sleep(0.1)
    except BaseException:
        _end(process.pid)
        raise
    # it outlives this process: without a code Popen would warn that it still runs
    process.returncode = 0
    write_json(_record(), {"url": url, "pid": process.pid, "uri": uri})
    return Server(url, process.pid, reused=False)


def _end(pid: int) -> None:
    for way, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, way)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if not _process_runs(pid):
                return
            time.sleep(0.05)

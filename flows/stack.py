"""The local Prefect server: one for each LLSFLOW_HOME, started once and kept; imports no Prefect."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llsflow.errors import Stopped, UnavailableError
from llsflow.home import home, locked, read_json, storage_errors, write_json

from . import environment as settings
from .processes import end, is_alive, make_room, spawn, started_at

DEFAULT_PORT = 4200
_HOST = "127.0.0.1"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_POLL_SECONDS = 0.1
_STARTS = 3
_LOG_TAIL_BYTES = 1 << 16

_spawned: list[subprocess.Popen[bytes]] = []
"""Servers that this process started: kept so that the end of one is collected, never waited for."""


@dataclass(frozen=True)
class ServerRecord:
    """What <home>/prefect/server.json says about the server of this home."""

    pid: int
    port: int
    url: str
    """Of the page; the API is under /api."""
    started: str
    """Mark of the process (see processes.started_at): the process id may be another's by now."""
    log_begin: int = 0
    """Bytes of the log that were there before it: servers of earlier runs wrote them."""

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.url}/api"

    def lives(self) -> bool:
        """Return whether that very process still runs."""
        for process in _spawned:
            process.poll()
        return is_alive(self.pid, self.started)


@dataclass(frozen=True)
class Status:
    """What is known of the Prefect server that a run would use."""

    url: str | None
    """Address of the API; None: no server was started."""
    local: bool
    """Whether it is the server of this home, and not one that PREFECT_API_URL names."""
    pid: int | None
    healthy: bool


class LocalPrefect:
    """The Prefect server that runs use: this home's own, or the one that PREFECT_API_URL names."""

    def __init__(self, port: int = DEFAULT_PORT) -> None:
        self.folder = home() / "prefect"
        self.external = _external_url()
        self._port = port
        self._die_with_parent = False

    @property
    def log_file(self) -> Path:
        """Where the local server writes what it has to say."""
        return self.folder / "server.log"

    def start(self, *, die_with_parent: bool = False) -> None:
        """Start the local server unless it runs already; return at once, while it still boots.

        Args:
            die_with_parent: whether a server that is started here ends with this process; else it stays, for
                the next run.

        Raises:
            StorageError: its folder cannot be written.
        """
        self._die_with_parent = die_with_parent
        self.prepare()
        if self.external:
            return
        with locked("prefect"):
            record = self._record()
            if record is None or not record.lives():
                # The same port again: a run whose server was killed finds the new one where it was.
                self._spawn(free_port(record.port if record else self._port))

    def prepare(self) -> None:
        """Make the folder and the logging configuration that Prefect is to find.

        Raises:
            StorageError: its folder cannot be written.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            settings.write_client_logging(self.folder)
            for log in (self.log_file, self.folder / "client.log"):
                make_room(log)

    def wait(self, timeout: float = 180.0, stopping: Callable[[], bool] = lambda: False) -> str:
        """Return the address of the API as soon as it answers.

        Raises:
            UnavailableError: it does not answer within `timeout` seconds, or it ended while it booted.
            Stopped: `stopping` said so in the meantime.
        """
        if self.external:
            return _probe_external(self.external)
        deadline = time.monotonic() + timeout
        starts = 1
        while True:
            record = self._record()
            if record is None or not record.lives():
                if starts == _STARTS or not self._lost_its_port(record):
                    raise UnavailableError(
                        "the local Prefect server ended while it started: "
                        f"{self._last_words()}; see {self.log_file}, then run the same command again"
                    )
                starts += 1
                self.start(die_with_parent=self._die_with_parent)
            elif self._answers(record):
                return record.api_url
            if stopping():
                raise Stopped("stopped while the Prefect server was starting: nothing has run yet")
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the local Prefect server did not answer within {timeout:.0f} seconds; see {self.log_file}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self) -> bool:
        """End the local server; return whether one ran."""
        if self.external:
            return False
        with locked("prefect"):
            record = self._record()
            (self.folder / "server.json").unlink(missing_ok=True)
            if record is None or not record.lives():
                return False
            end(record.pid, record.started)
            record.lives()
            return True

    def status(self) -> Status:
        """Return what a run would use now; starts nothing."""
        if self.external:
            return Status(self.external, local=False, pid=None, healthy=_is_there(self.external))
        record = self._record()
        if record is None or not record.lives():
            return Status(None, local=True, pid=None, healthy=False)
        return Status(record.api_url, local=True, pid=record.pid, healthy=self._answers(record))

    def local_url(self) -> str | None:
        """Return the address of the API of this home's own server; None: none runs. It may still boot."""
        record = self._record()
        return record.api_url if record and record.lives() else None

    def environment(self) -> dict[str, str]:
        """Return what to set in os.environ before Prefect is imported; call it after start()."""
        record = None if self.external else self._record()
        api_url = self.external or (record.api_url if record else f"http://{_HOST}:{self._port}/api")
        return settings.client_environment(self.folder, api_url, local=self.external is None)

    def _record(self) -> ServerRecord | None:
        found = read_json(self.folder / "server.json")
        try:
            return ServerRecord(**found) if isinstance(found, dict) else None
        except TypeError:  # not ours, or of another version
            return None

    def _spawn(self, port: int) -> None:
        log_begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        process = spawn(
            [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port)],
            log=self.log_file,
            environment=settings.server_environment(self.folder, port),
            # Prefect reads .env, prefect.toml and pyproject.toml of its working folder: not the user's.
            folder=self.folder,
            # Its database bears that; its own way to end waits for every open page.
            die_with_parent=signal.SIGKILL if self._die_with_parent else None,
        )
        _spawned.append(process)
        started = started_at(process.pid) or ""
        url = f"http://{_HOST}:{port}"
        write_json(
            self.folder / "server.json",
            {"pid": process.pid, "port": port, "url": url, "started": started, "log_begin": log_begin},
        )

    def _answers(self, record: ServerRecord) -> bool:
        """Return whether this home's server answers, and not another that took its port meanwhile."""
        if not _is_healthy(record.api_url, 1.0):
            return False
        found = _get(f"{record.api_url}/admin/settings", 5.0)
        return isinstance(found, dict) and found.get("home") == str(self.folder)

    def _lost_its_port(self, record: ServerRecord | None) -> bool:
        """Return whether the server ended because another program took the port first."""
        # Prefect says so where it looks first; where the port goes after that, uvicorn does, before many other lines
        return record is None or "already in use" in self._written(record.log_begin)

    def _last_words(self) -> str:
        """Return the last line that the server wrote."""
        lines = [line.strip() for line in self._written(0).split("\n")]
        said = [line for line in lines if line and line != "Server stopped!"]
        return said[-1][:200] if said else "it wrote nothing"

    def _written(self, begin: int) -> str:
        """Return the end of the log, no more of it than what follows its first `begin` bytes."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(begin, self.log_file.stat().st_size - _LOG_TAIL_BYTES))
                return log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _external_url() -> str | None:
    """Return the API that the user's environment names, unless it is one that we put there ourselves."""
    url = os.environ.get("PREFECT_API_URL") or None
    return None if url == os.environ.get(settings.OURS) else url


def _probe_external(url: str) -> str:
    if not _is_there(url):
        raise UnavailableError(
            f"PREFECT_API_URL is {url}, and nothing answers there: start it, or unset PREFECT_API_URL "
            "to use a server of llsflow's own"
        )
    return url


def _is_there(api_url: str) -> bool:
    """Return whether something answers: a server behind a login says so, and is there."""
    import httpx

    try:
        return httpx.get(f"{api_url}/health", timeout=5.0, trust_env=beyond_this_machine(api_url)).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def beyond_this_machine(url: str) -> bool:
    """Return whether a server is at another address than this machine's loopback."""
    # A proxy in the environment cannot reach this machine's loopback.
    return urlsplit(url).hostname not in _LOOPBACK


def _is_healthy(api_url: str, timeout_seconds: float) -> bool:
    return _get(f"{api_url}/health", timeout_seconds) is True


def _get(url: str, timeout_seconds: float) -> object:
    """Return the JSON at a URL, or None where there is none."""
    import httpx

    try:
        answer: object = httpx.get(url, timeout=timeout_seconds, trust_env=beyond_this_machine(url)).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return answer


def free_port(preferred: int) -> int:
    """Return the preferred port when nothing listens on it, else one that the system says is free."""
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the server itself binds: a connection of a server that just ended does not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UnavailableError(f"no port is free on {_HOST} for the local Prefect server")

"""What `llsflow serve` runs beside its API: the Prefect server, a worker, the inference engine and the MLflow page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llsflow.home import home, storage_errors
from llsflow.schema.server import ServerConfig
from llsflow.tracking import running_page

from .keeper import Service
from .processes import end, make_room, spawn, started_at
from .stack import LocalPrefect, free_port

ENGINE_PATIENCE_SECONDS = 5.0
WORKER_PATIENCE_SECONDS = 35.0
"""A job stops at its next step boundary; its process has half a minute for that."""


@dataclass
class ProcessService:
    """A service that is one process of ours."""

    name: str
    arguments: Callable[[], Sequence[str]]
    """The program and its words, asked for at every start."""
    up: Callable[[], str | None]
    """Returns its address (or an empty text) once it answers."""
    after: Sequence[str] = ()
    environment: Callable[[], Mapping[str, str]] = dict
    """Added to ours."""
    patience_seconds: float = 10.0
    """For a clean end."""
    end_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when we were killed."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _mark: str = field(default="", init=False)

    @property
    def log(self) -> Path:
        """Where it writes what it has to say."""
        return home() / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start it, and return at once."""
        with storage_errors(self.log.parent):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            make_room(self.log)
        self._process = spawn(
            self.arguments(),
            log=self.log,
            environment={**os.environ, **self.environment()},
            die_with_parent=self.end_signal,
        )
        self._mark = started_at(self._process.pid) or ""

    def end_of_it(self) -> str | None:
        """Return how it ended; None: it lives."""
        code = self._process.poll() if self._process else 0
        return None if code is None else f"ended with code {code}, see {self.log}"

    def ready(self) -> str | None:
        """Return its address (or an empty text) once it is up; None: not yet."""
        return self.up()

    def stop(self) -> None:
        """End it, and wait for its end."""
        if self._process is not None:
            end(self._process.pid, self._mark, self.patience_seconds)
            self._process.wait()


@dataclass
class PrefectService:
    """The local Prefect server, or the user's own that PREFECT_API_URL names."""

    prefect: LocalPrefect
    name: str = "prefect"
    after: Sequence[str] = ()

    def start(self) -> None:
        """Start the local server unless it runs."""
        self.prefect.start(die_with_parent=True)

    def end_of_it(self) -> str | None:
        """Return how it ended; None: it lives."""
        return None if self.prefect.external or self.prefect.local_url() else "its process ended"

    def ready(self) -> str | None:
        """Return the address of its page once it is up; None: not yet."""
        status = self.prefect.status()
        return (status.url or "").removesuffix("/api") if status.healthy else None

    def stop(self) -> None:
        """End the local server; the user's own goes on."""
        self.prefect.stop()


def machine_services(server: ServerConfig, prefect: LocalPrefect) -> list[Service]:
    """Return the services of one machine, in the order in which they are started."""
    found: list[Service] = [PrefectService(prefect), _worker(server, prefect), _engine(server)]
    if server.mlflow_page:
        found.append(_mlflow(server))
    return found


def _worker(server: ServerConfig, prefect: LocalPrefect) -> ProcessService:
    ready_file = home() / "prefect" / "worker.ready"

    def arguments() -> list[str]:
        ready_file.unlink(missing_ok=True)
        words = ["--pool", server.jobs.work_pool, "--limit", str(server.jobs.at_once), "--ready", str(ready_file)]
        return [sys.executable, "-m", f"{__package__}.worker", *words]

    return ProcessService(
        "worker",
        arguments,
        lambda: "" if ready_file.exists() else None,
        after=["prefect"],
        environment=prefect.environment,
        patience_seconds=WORKER_PATIENCE_SECONDS,
    )


def _engine(server: ServerConfig) -> ProcessService:
    config = server.engine
    port = 0

    def arguments() -> list[str]:
        nonlocal port
        port = free_port(config.port)
        words = {
            "--port": port,
            "--device": config.device,
            "--max-models": config.max_models,
            "--batch-size": config.batch_size,
            "--idle-seconds": config.idle_seconds,
        }
        return [sys.executable, "-m", "llsflow.models.engine", *(str(word) for pair in words.items() for word in pair)]

    def up() -> str | None:
        url = f"http://127.0.0.1:{port}"
        return url if _answers(f"{url}/health") else None

    return ProcessService("engine", arguments, up, patience_seconds=ENGINE_PATIENCE_SECONDS)


def _mlflow(server: ServerConfig) -> ProcessService:
    def up() -> str | None:
        page = running_page()
        return page.url if page else None

    return ProcessService(
        "mlflow",
        lambda: [sys.executable, "-m", "llsflow.tracking.page", str(server.mlflow_port)],
        up,
        # two cores bring up one thing at a time faster than all at once, and nobody waits for the page
        after=["worker"],
        patience_seconds=20.0,
        end_signal=signal.SIGTERM,
    )


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False

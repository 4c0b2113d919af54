"""The tiers of tests: which ones start a service, and that no other one does."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import pytest

SERVICES = (
    *("flows", "tracking", "cli/test_serve.py", "cli/test_session.py", "cli/test_commands.py", "house/test_wheel.py"),
    *("api/test_app.py", "api/test_crash.py", "api/test_aside.py", "api/test_traces.py", "api/test_turn_traces.py"),
    *("api/test_sessions.py", "api/test_schemathesis.py", "api/test_sandboxed_code.py", "store/test_processes.py"),
    *("tools/test_sandbox.py", "tools/test_sandbox_ready.py", "tools/test_code_interpreter.py", "tools/test_inside.py"),
    *("tools/test_mcp_server.py", "training/test_devices.py", "steps/test_kinds.py", "steps/test_baseline.py"),
    *("steps/test_gate.py", "steps/test_opening.py", "steps/test_fields.py", "steps/test_code.py"),
    *("steps/test_agents.py", "steps/test_answers.py", "steps/test_evaluate.py", "steps/test_pipeline.py"),
    *("steps/test_ranking.py", "models/test_engine.py"),
)
"""Folders and files whose tests start a service or processes, or record into MLflow: Prefect, a worker, the API's
process, sandboxes, a browser, a wheel's environment."""
WHOLE_RUN = "cli/test_whole_run.py"
"""The one file of the first tier that starts services."""
POSTGRESQL = "postgresql"
"""In the name of every test that has a PostgreSQL of its own."""

MODULES = ("prefect", "mlflow", "uvicorn", "flows", "llsflow.models.engine", "llsflow.tracking.page", "pip", "venv")
"""After `python -m`: the services, and what builds a wheel or an environment."""
PROGRAMS = ("prefect", "mlflow", "initdb", "pg_ctl", "postgres", "bwrap", "chromium", "chrome", "firefox")
DATABASES = ("mlflow.db", "prefect.db")
"""Files of MLflow and Prefect: making their tables takes seconds."""


def is_of_services(item: pytest.Item) -> bool:
    """Tell whether a test starts a service, by its place or by the database in its name."""
    place = _place(item)
    return any(place == name or place.startswith(f"{name}/") for name in SERVICES) or POSTGRESQL in item.name


def may_start_services(item: pytest.Item) -> bool:
    """Tell whether the guard leaves a test alone: it is of another tier, or the whole run."""
    return any(item.get_closest_marker(name) for name in ("services", "slow", "gpu")) or _place(item) == WHOLE_RUN


def _place(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


def service_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Return the service that an audit event of Python starts, in words; None: it starts none."""
    if event == "sqlite3.connect":
        name = PurePath(str(arguments[0]).partition("?")[0]).name
        return f"the database {name}" if name in DATABASES else None
    if event != "subprocess.Popen":
        return None
    words = [str(word) for word in arguments[1]] if isinstance(arguments[1], list | tuple) else [str(arguments[1])]
    if PurePath(words[0]).name in PROGRAMS:
        return PurePath(words[0]).name
    for option, module in pairwise(words):
        if option == "-m" and any(module == name or module.startswith(f"{name}.") for name in MODULES):
            return f"python -m {module}"
    if any("llsflow.cli" in word for word in words) and {"run", "serve", "deploy"} & set(words):
        return "llsflow " + next(word for word in words if word in ("run", "serve", "deploy"))
    return None


class Guard:
    """Hears of each service that starts between a test's setup and its teardown, from any thread."""

    def __init__(self) -> None:
        self._started: list[str] | None = None
        sys.addaudithook(self._hear)  # for good: Python offers no way to remove one

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._started is not None and event in ("sqlite3.connect", "subprocess.Popen"):
            service = service_of(event, arguments)
            if service is not None:
                self._started.append(service)

    def begin(self) -> None:
        """Listen from here on."""
        self._started = []

    def end(self) -> list[str]:
        """Listen no more; return what was started, each once."""
        started, self._started = self._started, None
        return list(dict.fromkeys(started or ()))

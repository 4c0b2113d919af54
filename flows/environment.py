"""The environment of Prefect: what must be set before it is imported, in this process and in its server."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from llsflow.home import write_aside

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
"""Nothing leaves this machine."""

OURS = "LLSFLOW_PREFECT_API_URL"
"""Says, to us and to the processes we start, that PREFECT_API_URL was set by us and not by the user."""

_LOGGING = """\
# Written by llsflow: Prefect's own chatter goes to a file, never to the terminal; what belongs to
# a flow run or a task run also goes to the API, so that the run's page shows it.
version: 1
disable_existing_loggers: false
formatters:
  standard:
    (): prefect.logging.formatters.PrefectFormatter
    format: "%(asctime)s %(process)d %(levelname)-7s %(name)s - %(message)s"
    flow_run_fmt: "%(asctime)s %(process)d %(levelname)-7s flow run %(flow_run_name)s - %(message)s"
    task_run_fmt: "%(asctime)s %(process)d %(levelname)-7s step %(task_run_name)s - %(message)s"
    datefmt: "%Y-%m-%d %H:%M:%S"
handlers:
  file:
    class: logging.handlers.WatchedFileHandler
    filename: {file}
    encoding: utf-8
    delay: true
    formatter: standard
  api:
    class: prefect.logging.handlers.APILogHandler
loggers:
  prefect: {{level: "${{PREFECT_LOGGING_LEVEL}}", handlers: [file], propagate: false}}
  prefect.extra: {{level: "${{PREFECT_LOGGING_LEVEL}}", handlers: [api, file], propagate: false}}
  prefect.flow_runs: {{level: NOTSET, handlers: [api]}}
  prefect.task_runs: {{level: NOTSET, handlers: [api]}}
  # Its queues count down aloud while they are emptied, under names of their own.
  EventsWorker: {{handlers: [file], propagate: false}}
  APILogWorker: {{handlers: [file], propagate: false}}
"""


def client_environment(folder: Path, api_url: str, *, local: bool) -> dict[str, str]:
    """Return what to set in os.environ before Prefect is imported.

    Variables win over a `.env`, `prefect.toml` or `pyproject.toml` in the working folder, so every
    setting that could send a run elsewhere is set, if only to nothing.
    """
    environment = {
        **QUIET,
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": _users_profiles(folder),
        "PREFECT_LOGGING_CONFIG_PATH": str(folder / "client-logging.yml"),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        # A server that went away costs the run 14 seconds at its end, not Prefect's own 62: long enough for
        # the local one to be back.
        "PREFECT_CLIENT_MAX_RETRIES": "3",
    }
    if local:
        environment |= {
            OURS: api_url,
            "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
            "PREFECT_API_KEY": "",
            "PREFECT_API_AUTH_STRING": "",
            "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
            "PREFECT_UI_URL": api_url.removesuffix("/api"),
            "NO_PROXY": _past_the_proxy("NO_PROXY"),
            "no_proxy": _past_the_proxy("no_proxy"),
        }
    return environment


def _users_profiles(folder: Path) -> str:
    """Return the file where the user keeps the key of a server of theirs."""
    if known := os.environ.get("PREFECT_PROFILES_PATH"):
        return known
    theirs = os.environ.get("PREFECT_HOME")
    place = Path(theirs) if theirs and Path(theirs) != folder else Path.home() / ".prefect"
    return str(place / "profiles.toml")


def _past_the_proxy(variable: str) -> str:
    """Return the variable's value with the loopback addresses added."""
    known = [host for host in os.environ.get(variable, "").split(",") if host]
    return ",".join([*known, *(host for host in ("127.0.0.1", "localhost") if host not in known)])


def write_client_logging(folder: Path) -> None:
    """Write the logging configuration that `client_environment` names."""
    # The file is a template to Prefect: a dollar sign in the path must not look like a setting.
    file = json.dumps(str(folder / "client.log")).replace("$", "$$")
    path = folder / "client-logging.yml"
    text = _LOGGING.format(file=file)
    if not path.exists() or path.read_text("utf-8") != text:
        write_aside(path, text)


def server_environment(folder: Path, port: int) -> dict[str, str]:
    """Return the whole environment of the local server: the user's, without their Prefect settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        # Its messages are read again when it ends early: in one line, however narrow the terminal.
        "COLUMNS": "500",
    }
    package = importlib.util.find_spec("prefect")
    if package and package.origin and not os.access(Path(package.origin).parent / "server", os.W_OK):
        # The server unpacks its pages beside its code, which an installed package may not allow.
        environment["PREFECT_SERVER_UI_STATIC_DIRECTORY"] = str(folder / "ui")
    return environment

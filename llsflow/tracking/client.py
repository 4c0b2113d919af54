"""The one door to MLflow: a quiet import, an address that is safe to print, and a probe before MLflow's retries."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llsflow.errors import UnavailableError
from llsflow.home import home

PROBE_SECONDS = 3.0
"""How long a tracking server may take to accept a connection."""

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def quiet_environment() -> dict[str, str]:
    """Return the variables that keep MLflow from phoning home, chattering and retrying for minutes."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
    }


def import_client() -> Callable[[str], Any]:
    """Import MLflow (a second or more) and return what makes a client on a URI, for tracking and registry.

    Making the client makes the schema of a new SQL store: hold a lock against other processes.
    """
    os.environ.update(quiet_environment())
    # MLflow 3.17's own mapping under SQLAlchemy 2.1: nothing that a user can mend
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")
    from mlflow import MlflowClient

    # MLflow logs a traceback for every store error that we catch, alembic a line per migration
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return lambda uri: MlflowClient(tracking_uri=uri, registry_uri=uri)


def tracking_uri(configured: str | None) -> str:
    """Return the configured URI, else MLFLOW_TRACKING_URI, else SQLite under LLSFLOW_HOME; never relative."""
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri:
        return f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}"
    path = sqlite_path(uri)
    return f"sqlite:///{path}" if path else uri.rstrip("/")


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of the database file of a SQLite URI, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path.cwd() / uri.removeprefix("sqlite:///")).resolve()


def is_server(uri: str) -> bool:
    """Say whether `uri` is an MLflow server rather than a database."""
    return uri.startswith(("http://", "https://"))


def shown(uri: str) -> str:
    """Return `uri` without the password in it."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def probe(uri: str) -> None:
    """Connect to the host of `uri`, if it has one, within PROBE_SECONDS.

    Raises:
        UnavailableError: the URI is not one that MLflow can record to, or nothing answers there.
    """
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite" or uri.startswith("databricks"):
        return
    if scheme not in _PORTS:
        raise UnavailableError(
            f"MLflow cannot record to {shown(uri)!r}: tracking.uri takes http(s)://…, sqlite:///… or "
            "postgresql://…; leave it null to record under LLSFLOW_HOME"
        )
    try:
        address = (parts.hostname or "", parts.port or _PORTS[scheme])
        socket.create_connection(address, timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"MLflow does not answer at {shown(uri)} ({error}): start it, correct tracking.uri or "
            "MLFLOW_TRACKING_URI, or leave both unset to record under LLSFLOW_HOME"
        ) from error

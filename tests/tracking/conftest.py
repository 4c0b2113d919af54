"""A store whose schema is made once, and a way to run a script as another process."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import Tracking

Script = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database with the schema and nothing of ours."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLSFLOW_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(TrackingConfig(experiment="of-the-fixture"))
        tracking.connect()
        tracking.close()
    database = folder / "mlflow" / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an LLSFLOW_HOME that does not exist yet, with a name that is hard on URIs."""
    folder = tmp_path / "home ö"
    monkeypatch.setenv("LLSFLOW_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def store_home(fresh_home: Path, empty_store: Path) -> Path:
    """Return an LLSFLOW_HOME whose store has its schema."""
    (fresh_home / "mlflow").mkdir(parents=True)
    shutil.copyfile(empty_store, fresh_home / "mlflow" / "mlflow.db")
    return fresh_home


@pytest.fixture
def tracking(store_home: Path) -> Iterator[Tracking]:
    """Return a connected store."""
    opened = Tracking(TrackingConfig(experiment="exp"))
    opened.connect()
    yield opened
    opened.close()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Return a function that starts Python on a text, in a folder of its own."""
    started: list[subprocess.Popen[str]] = []
    folder = tmp_path / "cwd"
    folder.mkdir()

    def start(text: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            **options,  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()

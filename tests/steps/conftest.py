"""What the tests of several steps share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for a module's tests: a new record in MLflow takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def one_home(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, llsflow_home: Path) -> None:
    """Work in a folder of the test's own, with the module's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLSFLOW_HOME", str(home))

"""A user's project: an empty folder to stand in, with a conf folder of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.config import load_experiment
from llsflow.errors import ConfigError

Write = Callable[[str, str], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(project: Path) -> Write:
    """Write a dedented file below the project's folder."""

    def _write(name: str, text: str) -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
        return path

    return _write


@pytest.fixture
def mistakes(project: Path) -> Callable[..., list[str]]:
    """Return the lines of the report that loading gives; it must give one."""

    def _mistakes(name: str | None, *overrides: str, config_file: Path | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_experiment(name, overrides, config_file=config_file)
        assert caught.value.exit_code == 2
        return str(caught.value).splitlines()

    return _mistakes

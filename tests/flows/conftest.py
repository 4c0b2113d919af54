"""One real Prefect server for the whole folder, and quick ones for the tests that ill-treat theirs."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.runner import PrefectRunner
from flows.stack import LocalPrefect
from tests.flows.flow_program import execute, wait_for
from tests.patience import PATIENCE_SECONDS

PROGRAM = Path(__file__).parent / "flow_program.py"


def spawn(home: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    """Start the program in a process of its own, as the command line would be."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "LLSFLOW_")) and name != "DO_NOT_TRACK"
    }
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *words],
        env={**environment, "LLSFLOW_HOME": str(home), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_step(process: subprocess.Popen[str], home: Path, step: str) -> None:
    """Wait for a program to begin a step."""

    def began_or_ended() -> bool:
        return (home / f"began-{step}").exists() or process.poll() is not None

    wait_for(began_or_ended, f"the beginning of {step}")
    assert process.poll() is None, process.communicate()


def finish(process: subprocess.Popen[str], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what the program printed, once it is done well; nothing else may reach the terminal."""
    out, err = process.communicate(timeout=seconds)
    assert (process.returncode, err) == (0, "")
    return json.loads(out.splitlines()[-1])


@dataclass(frozen=True)
class SharedServer:
    """The server that two processes started at once on a home where nothing was."""

    home: Path
    urls: tuple[str, str]
    """What each of the two was told."""


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    home = tmp_path_factory.mktemp("home")
    both = [spawn(home, "boot"), spawn(home, "boot")]
    try:
        first, second = (finish(process)["url"] for process in both)
        yield SharedServer(home, (first, second))
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LLSFLOW_HOME", str(home))
            patch.delenv("PREFECT_API_URL", raising=False)
            LocalPrefect().stop()


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Give every test the environment back that a runner sets."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "LLSFLOW_"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def served(shared_server: SharedServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home whose server runs."""
    monkeypatch.setenv("LLSFLOW_HOME", str(shared_server.home))
    for trace in [shared_server.home / "go", *shared_server.home.glob("began-*")]:
        trace.unlink(missing_ok=True)
    return shared_server.home


@pytest.fixture
def runner(served: Path) -> PrefectRunner:
    return PrefectRunner(execute, retries={"record": 2}, retry_seconds=0.05, progress_seconds=0.05)


@pytest.fixture
def new_home(
    shared_server: SharedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Path]]:
    """Make homes without a server; with a database that is migrated already, which saves ten seconds each."""
    made: list[Path] = []

    def make(name: str) -> Path:
        home = tmp_path / name
        (home / "prefect").mkdir(parents=True)
        source = sqlite3.connect(shared_server.home / "prefect" / "prefect.db")
        target = sqlite3.connect(home / "prefect" / "prefect.db")
        source.backup(target)
        source.close()
        target.close()
        made.append(home)
        monkeypatch.setenv("LLSFLOW_HOME", str(home))
        return home

    yield make
    for home in made:
        monkeypatch.setenv("LLSFLOW_HOME", str(home))
        os.environ.pop("PREFECT_API_URL", None)
        LocalPrefect().stop()

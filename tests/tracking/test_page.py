"""The process that keeps the MLflow page up: it ends with it, and it ends when its page does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llsflow.tracking import running_page
from llsflow.tracking.server import Server
from tests.patience import PATIENCE_SECONDS


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def keeping(store_home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps the page up, once it is."""
    process = subprocess.Popen([sys.executable, "-m", "llsflow.tracking.page", "0"], stderr=subprocess.DEVNULL)
    try:
        until(running_page)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_SECONDS)


def page() -> Server:
    found = running_page()
    assert found is not None
    assert found.pid is not None
    return found


@pytest.mark.slow
def test_the_page_ends_with_its_keeper_and_the_keeper_with_its_page(
    keeping: subprocess.Popen[bytes],
) -> None:
    shown = page()
    keeping.send_signal(signal.SIGTERM)
    assert keeping.wait(timeout=PATIENCE_SECONDS) == 0
    assert not shown.lives()
    again = subprocess.Popen([sys.executable, "-m", "llsflow.tracking.page", "0"], stderr=subprocess.DEVNULL)
    until(running_page)
    killed = page().pid
    assert killed is not None
    os.killpg(killed, signal.SIGKILL)
    assert again.wait(timeout=PATIENCE_SECONDS) == 1

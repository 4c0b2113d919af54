"""The process aside: it answers, fails, and ends as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llsflow.api.aside import Aside
from llsflow.errors import DataError, Mistake, UnavailableError
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def aside() -> Iterator[Aside]:
    """One process."""
    started = Aside(processes=1)
    yield started
    started.close()


def refuse() -> None:
    """Refuse two things."""
    raise DataError([Mistake("row 1", "is wrong"), Mistake("row 2", "too")])


def die() -> None:
    """End as a process does that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_is_another_process(aside: Aside) -> None:
    assert aside.run(os.getpid) != os.getpid()


def test_mistakes_come_back_whole(aside: Aside) -> None:
    with pytest.raises(DataError) as error:
        aside.run(refuse)
    assert error.value.mistakes == (Mistake("row 1", "is wrong"), Mistake("row 2", "too"))


def test_after_a_killed_process_another_one_answers(aside: Aside) -> None:
    with pytest.raises(UnavailableError, match="was killed"):
        aside.run(die)
    assert aside.run(os.getpid)


def announce(started: str) -> None:
    """Say so, and go on without end."""
    Path(started).touch()
    signal.pause()


def test_closing_does_not_wait_for_what_is_under_way(tmp_path: Path) -> None:
    aside = Aside(processes=1)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(aside.run, announce, str(tmp_path / "started"))
        while not (tmp_path / "started").exists():
            assert not first.done()
        second = pool.submit(aside.run, announce, str(tmp_path / "never"))
        aside.close()
        for waiting in (first, second):
            with pytest.raises((UnavailableError, RuntimeError)):
                waiting.result(timeout=PATIENCE_SECONDS)


PROGRAM = """
import os, sys
from llsflow.api.aside import Aside

if __name__ == "__main__":
    print(Aside().run(os.getpid), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_it_works_for(how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    server = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert server.stdout
    assert int(server.stdout.readline()) != server.pid
    server.send_signal(how)
    # the pipe has its end when the process aside has ended too: it holds it open as well
    assert server.communicate(timeout=PATIENCE_SECONDS)[0] == ""

"""Telling the living from the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from llsflow.store.owners import ELSEWHERE, lives, this_process

NOW = datetime.now(UTC)
PROGRAM = "from llsflow.store.owners import this_process; print(this_process(), flush=True); input()"


def test_this_process_lives() -> None:
    assert lives(this_process(), NOW - 2 * ELSEWHERE)


def test_another_process_lives_until_it_ends() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert lives(owner, NOW)
        process.kill()
    assert not lives(owner, NOW)


def test_a_later_process_of_the_same_number_is_another() -> None:
    host, pid, started = this_process().rsplit(" ", 2)
    assert int(pid) == os.getpid()
    assert not lives(f"{host} {pid} {started}0", NOW)


def test_of_another_machine_only_time_tells() -> None:
    assert lives("elsewhere 1 2", NOW)
    assert not lives("elsewhere 1 2", NOW - ELSEWHERE - timedelta(minutes=1))

"""Which process is which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from flows.processes import end, is_alive, started_at
from tests.flows.flow_program import wait_for

CHILD = [sys.executable, "-c", "print('here', flush=True); input()"]


def test_a_process_keeps_its_mark_and_no_other_has_it() -> None:
    mine = started_at(os.getpid())
    assert mine is not None
    assert mine == started_at(os.getpid())
    assert mine != started_at(os.getppid())
    assert is_alive(os.getpid(), mine)
    assert not is_alive(os.getppid(), mine)


def test_a_process_nobody_collected_is_dead() -> None:
    with subprocess.Popen(CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        mark = started_at(child.pid)
        assert mark is not None
        child.kill()
        wait_for(lambda: not is_alive(child.pid, mark), "the end of the child", 10)
        assert started_at(child.pid) is None
    assert started_at(child.pid) is None


def test_a_process_that_never_was_is_dead() -> None:
    assert started_at(2**22 + 1) is None


def test_ending_takes_what_the_process_started_with_it() -> None:
    script = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as deaf:
        assert deaf.stdout is not None
        grandchild = int(deaf.stdout.readline())
        mark, grand_mark = started_at(deaf.pid), started_at(grandchild)
        assert mark is not None
        assert grand_mark is not None
        end(deaf.pid, mark, patience_seconds=0.2)
        assert deaf.wait(10) == -signal.SIGKILL
        wait_for(lambda: not is_alive(grandchild, grand_mark), "the end of the grandchild", 10)


def test_a_process_with_another_mark_is_left_alone() -> None:
    with subprocess.Popen(CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        end(child.pid, "another:1")
        assert child.poll() is None
        child.stdin.close()
        child.wait(10)

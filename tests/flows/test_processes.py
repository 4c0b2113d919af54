"""Which process is which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import processes
from flows.processes import descendants, end, is_alive, spawn, started_at
from tests.flows.flow_program import wait_for
from tests.patience import PATIENCE_SECONDS

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
        assert deaf.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        wait_for(lambda: not is_alive(grandchild, grand_mark), "the end of the grandchild")


def test_a_process_with_another_mark_is_left_alone() -> None:
    with subprocess.Popen(CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        end(child.pid, "another:1")
        assert child.poll() is None
        child.stdin.close()
        child.wait(PATIENCE_SECONDS)


PARENT = """
import os, signal, sys
from pathlib import Path
from flows.processes import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=Path(sys.argv[1]),
              die_with_parent=getattr(signal, sys.argv[2]) if sys.argv[2] != "none" else None)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize(("word", "dies"), [("SIGKILL", True), ("SIGTERM", True), ("none", False)])
def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path, word: str, dies: bool) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path / "log"), word]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        mark = started_at(child) or ""
        wait_for(lambda: "sleep" in Path(f"/proc/{child}/cmdline").read_text(), "the program itself")
        parent.kill()
    if dies:
        wait_for(lambda: not is_alive(child, mark), "the end of the child")
    else:
        assert is_alive(child, mark)
        end(child, mark)


def test_what_a_process_says_is_in_its_log_and_it_leads_a_session(tmp_path: Path) -> None:
    program = "import os; print(os.getsid(0) == os.getpid(), os.environ.get('WORD'), os.getcwd())"
    arguments = [sys.executable, "-c", program]
    log = tmp_path / "log"
    log.write_text("before\n")
    child = spawn(arguments, log=log, environment={"WORD": "here"}, folder=tmp_path, die_with_parent=signal.SIGKILL)
    assert child.wait(PATIENCE_SECONDS) == 0
    assert log.read_text() == f"before\nTrue here {tmp_path}\n"


def test_descendants_are_found_and_those_of_others_are_not() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as child:
        wait_for(lambda: len(descendants(child.pid)) == 1, "a grandchild")
        assert {child.pid, *descendants(child.pid)} <= {*descendants(os.getpid())}
        assert os.getpid() not in descendants(child.pid)


def test_a_flow_run_that_does_not_stop_is_ended_with_its_children() -> None:
    """Its main thread is deep in a call that no handler of Python's interrupts."""
    program = """
import ctypes, subprocess, sys
from flows.ending import Ending
Ending(hard_end_seconds=0.2).arm()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
while True:
    ctypes.CDLL(None).sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        mark = started_at(child) or ""
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    wait_for(lambda: not is_alive(child, mark), "the end of its child")


def test_a_log_that_grew_long_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 3)
    log = tmp_path / "worker.log"
    processes.make_room(log)
    for text, kept in (("abc", "abc"), ("abcd", None), ("efgh", None)):
        log.write_text(text)
        processes.make_room(log)
        assert (log.read_text() if log.exists() else None) == kept
    assert (tmp_path / "worker.log.1").read_text() == "efgh"

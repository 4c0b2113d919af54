"""Whether two mathematical answers are the same: as text, as exact numbers, then by math-verify in a time limit.

math-verify works in a process of its own, which can be ended whenever the limit is reached, from any thread and without
signals here; what it spends on a hard case is its own memory.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import IO

from llsflow.scorers.mathtext import MOST_CHARACTERS, is_word, literal, number, plain, squeezed, unit

TIME_LIMIT_SECONDS = 3.0
"""Most processor time for one pair of answers."""
_WAIT_SECONDS = 120.0
"""How long the process may take to start, or to be given its processor time on a busy machine."""
_MEMORY_BYTES = 2 * 2**30


class UndecidedError(Exception):
    """math-verify came to no result within the time and memory limits."""


@lru_cache(maxsize=4096)
def equivalent(expected: str, generated: str) -> bool:
    """Return whether two answers, in LaTeX or plain text, have the same value.

    Raises:
        UndecidedError: it could not be decided within TIME_LIMIT_SECONDS.
    """
    if (written := (literal(expected), literal(generated))) != (None, None):
        return written[0] == written[1]
    units = unit(expected), unit(generated)
    if None not in units and units[0] != units[1]:
        return False
    left, right = plain(expected), plain(generated)
    if squeezed(left) == squeezed(right):
        return True
    if not left or not right or is_word(left) or is_word(right):
        return bool(left) and left.casefold() == right.casefold()
    if (len(left) == 1 and len(right) == 1 and (left + right).isalpha()) or _set_and_tuple(left, right):
        return False
    numbers = number(left), number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    if max(len(left), len(right)) > MOST_CHARACTERS:
        return False
    return WORKER.equal(left, right)


def _set_and_tuple(left: str, right: str) -> bool:
    """Return whether one of two answers is a set and the other has an order."""
    ordered = [text.startswith("(") and text.endswith(")") for text in (left, right)]
    sets = [text.startswith("\\{") and text.endswith("\\}") for text in (left, right)]
    return (ordered[0] and sets[1]) or (sets[0] and ordered[1])


class Worker:
    """The process that runs math-verify: started when first needed, ended when a pair takes too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def equal(self, left: str, right: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> bool:
        """Return whether two answers have the same value.

        Raises:
            UndecidedError: not within the time limit, or the process ran out of memory.
        """
        with self._lock:
            process = self._started()
            try:
                _stdin(process).write(json.dumps([time_limit_seconds, left, right]) + "\n")
                _stdin(process).flush()
                # the process ends itself at the limit
                answer = self._lines.get(timeout=_WAIT_SECONDS)
            except (queue.Empty, OSError):
                answer = ""
            if answer not in ("true", "false"):
                self._end()
                raise UndecidedError(f"math-verify could not decide in {time_limit_seconds:g} s")
            return answer == "true"

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llsflow.scorers.symbolic", str(_MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for the run, which then closes us
            env={**os.environ, "PYTHONPATH": path},
        )
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        with contextlib.suppress(queue.Empty):
            if self._lines.get(timeout=_WAIT_SECONDS) == "ready":
                return self._process
        self._end()
        raise UndecidedError("math-verify could not be started: pip install math-verify")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):  # unsent bytes of a pipe whose reader is gone
            _stdin(process).close()


def _stdin(process: subprocess.Popen[str]) -> IO[str]:
    if process.stdin is None:
        raise RuntimeError("the process was started without a pipe")
    return process.stdin


def _read(stream: IO[str], lines: queue.Queue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line.strip())
    lines.put("")  # the end: nobody waits for a dead process


WORKER = Worker()
atexit.register(WORKER.close)

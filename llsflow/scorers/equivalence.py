"""Whether two mathematical answers are the same: as text, as exact numbers, then by sympy in a time limit.

sympy works in a process of its own, which can be ended whenever the limit is reached, from any thread and
without signals here; what it spends on a hard case is its own memory.
"""

from __future__ import annotations

import atexit
import cmath
import contextlib
import json
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from llsflow.scorers.latex import Tree, UnreadableError, normalise, parse, rational, split_list

TIME_LIMIT_SECONDS = 3.0
"""Longest work on one pair of answers."""
_START_SECONDS = 120.0
_MEMORY_BYTES = 2 * 2**30
_POINTS = 3
_Number = Callable[..., Any]


class UndecidedError(Exception):
    """sympy came to no result within the time and memory limits."""


@lru_cache(maxsize=4096)
def equivalent(expected: str, generated: str) -> bool:
    """Return whether two answers, in LaTeX or plain text, have the same value.

    Raises:
        UndecidedError: they agree wherever tried, and sympy could not decide within TIME_LIMIT_SECONDS.
    """
    left, right = normalise(expected), normalise(generated)
    if left == right:
        return True
    open_left, parts_left, close_left = split_list(left)
    open_right, parts_right, close_right = split_list(right)
    if (open_left, close_left, len(parts_left)) != (open_right, close_right, len(parts_right)):
        return False
    return all(_same(a, b) for a, b in zip(parts_left, parts_right, strict=True))


def _same(left: str, right: str) -> bool:
    if left == right:
        return True
    try:
        trees = parse(left), parse(right)
    except UnreadableError:
        return False
    values = rational(trees[0]), rational(trees[1])
    if values[0] is not None and values[1] is not None:
        return values[0] == values[1]
    if _differ(*trees):
        return False
    return WORKER.equal(*trees)


def _differ(left: Tree, right: Tree) -> bool:
    """Tell most wrong answers without sympy: the two differ at some point that was drawn once and for all."""
    draw = random.Random(0)  # noqa: S311 - points to try, not secrets
    for _ in range(_POINTS):
        values: dict[str, complex] = {}
        try:
            a, b = (_at(tree, values, draw) for tree in (left, right))
        except (ArithmeticError, ValueError):
            continue
        if abs(a - b) > 1e-6 * max(1.0, abs(a), abs(b)):
            return True
    return False


_NUMERIC: dict[str, _Number] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "abs": abs,
    "sqrt": cmath.sqrt,
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda a: 1 / cmath.tan(a),
    "sec": lambda a: 1 / cmath.cos(a),
    "csc": lambda a: 1 / cmath.sin(a),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "ln": cmath.log,
    "log": cmath.log10,
    "exp": cmath.exp,
}


def _at(tree: Tree, values: dict[str, complex], draw: random.Random) -> complex:
    kind = tree[0]
    if kind == "num":
        return complex(float(str(tree[1])))
    if kind == "sym":
        name = str(tree[1])
        if name == "infty":
            raise ValueError("no number")
        known = {"pi": cmath.pi, "e": cmath.e, "i": 1j}
        if name not in known and name not in values:
            values[name] = complex(draw.uniform(0.5, 2), draw.uniform(0.1, 1))
        return complex(known.get(name, values.get(name, 0)))
    name = str(tree[1]) if kind == "fn" else kind
    return complex(_NUMERIC[name](*(_at(part, values, draw) for part in tree[1:] if isinstance(part, tuple))))


class Worker:
    """The process that runs sympy: started when first needed, ended when a pair takes too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def equal(self, left: Tree, right: Tree, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> bool:
        """Return whether sympy simplifies the difference of two trees to zero.

        Raises:
            UndecidedError: not within the time limit, or the process ran out of memory.
        """
        with self._lock:
            process = self._started()
            try:
                _stdin(process).write(json.dumps([time_limit_seconds, left, right]) + "\n")
                _stdin(process).flush()
                # the process ends itself at the limit; the second here is for a machine that is busy
                answer = self._lines.get(timeout=time_limit_seconds + 1)
            except (queue.Empty, OSError):
                answer = ""
            if answer not in ("true", "false"):
                self._end()
                raise UndecidedError(f"sympy could not decide in {time_limit_seconds:g} s")
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
            if self._lines.get(timeout=_START_SECONDS) == "ready":
                return self._process
        self._end()
        raise UndecidedError("sympy could not be started")

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

"""Which process is which, and processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_POLL_SECONDS = 0.05

LOG_BYTES = 4_000_000
"""A log that is longer is put aside before its program starts again."""

_LAUNCHER = Path(__file__).with_name("launch.py")

_spawner = ThreadPoolExecutor(1, "llsflow-spawn")
"""Starts every child that is to end with us: the kernel ends it when the thread that started it ends."""


def spawn(
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    die_with_parent: signal.Signals | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in the background, in a session of its own, with its output appended to `log`.

    Args:
        arguments: the program and its words.
        log: file for stdout and stderr; its folder is there.
        environment: the whole environment; None: ours.
        folder: its working folder; None: ours.
        die_with_parent: what the kernel sends it when this process ends, however that is; None: nothing. Only
            Linux can; elsewhere the process goes on.
    """
    words = [*arguments]
    if die_with_parent and sys.platform == "linux":
        words = [sys.executable, "-IS", str(_LAUNCHER), str(os.getpid()), str(int(die_with_parent)), *words]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if environment is None else {**environment},
                cwd=folder,
                # Ctrl-C in the user's terminal is for the program in the foreground.
                start_new_session=True,
            )

    return _spawner.submit(start).result() if die_with_parent else start()


def make_room(log: Path) -> None:
    """Put a log aside that has grown long, in the place of the one before; for a log that nobody writes now."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


def started_at(pid: int) -> str | None:
    """Return a mark that no other process ever had: when this one started; None when it is dead.

    A process that ended but was not yet collected by its parent (a zombie) counts as dead.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_at_by_ps(pid)
    # The name in parentheses may hold spaces and parentheses: the fields start after the last one.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    with contextlib.suppress(OSError):
        # The start is counted from the boot, so the boot belongs to the mark.
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text('ascii').strip()}:{pid}:{fields[19]}"
    return f"{pid}:{fields[19]}"


def _started_at_by_ps(pid: int) -> str | None:
    """Return the same mark where there is no /proc (macOS)."""
    found = subprocess.run(
        ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = found.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else f"{pid}:{started.strip()}"


def is_alive(pid: int, started: str) -> bool:
    """Return whether the process that started at that mark still lives."""
    return started_at(pid) == started


def end(pid: int, started: str, patience_seconds: float = 10.0) -> None:
    """End a process that leads its own plan_run, and whatever it started there: politely, then by force."""
    if not is_alive(pid, started):
        return  # the process id may be another's: nothing here is ours to end
    for number, patience in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience
        while is_alive(pid, started) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these started; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text("utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end_descendants() -> None:
    """Kill everything that this process started and that still lives."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)

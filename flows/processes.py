"""Which process is which: a process id alone may by now belong to another program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_POLL_SECONDS = 0.05


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

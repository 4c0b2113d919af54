"""Who is importing rows, so that what a killed process left can be told from what a living one is writing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

ELSEWHERE = timedelta(days=1)
"""An import that began longer ago on another machine, where nobody here can look, counts as dead."""


def this_process() -> str:
    """Return a name of this process that no later one has."""
    return _name(os.getpid())


@cache  # a process that was forked off has a number of its own
def _name(pid: int) -> str:
    return f"{platform.node()} {pid} {_started(pid)}"


def lives(owner: str, since: datetime) -> bool:
    """Return whether the process `owner` may still be writing what it began at `since`."""
    host, _, process = owner.rpartition(" ")[0].rpartition(" ")
    if host != platform.node():
        return datetime.now(UTC) - since < ELSEWHERE
    pid = int(process)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return owner.rpartition(" ")[2] == _started(pid)


def _started(pid: int) -> str:
    """Return when the process began, in the kernel's ticks; empty where /proc does not say."""
    try:
        # the command, in brackets, may hold spaces and brackets itself
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""

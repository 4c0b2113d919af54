"""Becomes another program that ends with its parent: `python launch.py PARENT SIGNAL PROGRAM ...`; stdlib only."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def end_with(parent: int, signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends; end now where it has ended already.

    The word outlives exec, but neither fork nor a change of user. On other systems than Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have children of ended children become this process's own, so that it finds them when it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


if __name__ == "__main__":
    end_with(int(sys.argv[1]), int(sys.argv[2]))
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell is wanted

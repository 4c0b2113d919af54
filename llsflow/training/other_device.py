"""The program of another device's process: it trains with the first, and ends when that does.

Its rank and inputs come from standard input.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading

from llsflow.errors import LlsflowError, Stopped
from llsflow.garbage import look_seldom
from llsflow.training.fit import train_as
from llsflow.training.inputs import FitHooks


def main() -> None:
    """Train as one of the other devices."""
    look_seldom()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    device, inputs, folder = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    try:
        train_as(device, inputs, folder, FitHooks())
    except Stopped:
        pass
    except LlsflowError as error:
        sys.exit(str(error))


def _end_with_the_first() -> None:
    os.read(0, 1)  # not the buffered reader: its lock, held at the end of the program, would be fatal
    os._exit(1)


if __name__ == "__main__":
    main()

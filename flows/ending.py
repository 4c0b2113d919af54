"""How the process of a flow run ends when it is told to: at the next step boundary, or by force; imports no Prefect."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from .processes import end_descendants

HARD_END_SECONDS = 20.0
"""After SIGTERM. A worker sends SIGKILL after 30 seconds, which would leave children alone."""


class Ending:
    """The request to end that SIGTERM is: from the worker, or from the kernel when the worker is gone."""

    def __init__(self, hard_end_seconds: float = HARD_END_SECONDS) -> None:
        self.asked = threading.Event()
        """Set once the process is to end: at its next step boundary."""
        self._hard_end_seconds = hard_end_seconds
        self._watched = False

    def arm(self) -> None:
        """Take SIGTERM for ours, in the main thread; again where a library has put its own handler in place."""
        signal.signal(signal.SIGTERM, self._note)
        if self._watched:
            return
        self._watched = True
        # A handler of Python's only runs between two instructions, and the main thread may be deep in a library.
        # The byte in this pipe is written at once, so that the hard end is certain.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="llsflow-ending", daemon=True).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()

    def _watch(self, reading: int) -> None:
        while signal.SIGTERM not in os.read(reading, 64):
            pass
        self.asked.set()
        time.sleep(self._hard_end_seconds)
        end_descendants()
        os.kill(os.getpid(), signal.SIGKILL)


ENDING = Ending()
"""That of this process."""

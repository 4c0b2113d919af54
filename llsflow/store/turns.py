"""A lock that is handed on in the order of asking."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock whose waiters come in by turn: one that writes in a loop keeps nobody out."""

    def __init__(self) -> None:
        self._state = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        """Wait for the turn."""
        with self._state:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:  # an interrupt while waiting must leave the queue whole
            with self._state:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self._hand_on()
            raise

    def __exit__(self, *_: object) -> None:
        """Hand it to who has waited longest."""
        self._hand_on()

    def _hand_on(self) -> None:
        with self._state:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

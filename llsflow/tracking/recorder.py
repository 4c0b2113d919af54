"""The writer behind one run: curves in batches from a thread of its own, and never an exception to the caller."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from llsflow.tracking.operations import Target, apply, find_run
from llsflow.tracking.spool import Operation, Spool

BATCH_POINTS = 500
"""Points that are written without waiting for the interval."""
BATCH_SECONDS = 2.0
"""Longest time that a point waits in memory: what a killed process can lose."""
RETRY_SECONDS = (1.0, 60.0)
"""Shortest and longest pause before a store that failed is tried again."""

# The store will say the same however often it is asked: trying again would block all that comes after
_FINAL = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "PERMISSION_DENIED",
}

log = logging.getLogger("llsflow.tracking")

_told: set[Path] = set()
"""Spool folders of the stores that do not answer: one warning for all runs, until the store is back."""


def refused(error: Exception) -> bool:
    """Say whether an error is about the operation itself, so that no later try can succeed."""
    code = getattr(error, "error_code", None)
    return code in _FINAL if code else isinstance(error, (TypeError, ValueError, KeyError, FileNotFoundError))


class Recorder:
    """Applies operations in order; what the store cannot take waits in the spool."""

    def __init__(self, target: Target, spool: Spool) -> None:
        self.target = target
        self.spool = spool
        self._order = threading.RLock()
        self._points: list[list[Any]] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False
        self._pause = RETRY_SECONDS[0]
        self._retry_at = 0.0

    def submit(self, op: Operation) -> str:
        """Do `op` now, or keep it; return what it made, or an empty text while it waits."""
        with self._order:
            if self.spool and not self._drain(forced=False):
                self.spool.append(op)
                return ""
            try:
                return self._apply(op)
            except Exception as error:
                return self._failed(op, error)

    def add_points(self, points: list[list[Any]]) -> None:
        """Take points for the next batch."""
        with self._wake:
            self._points.extend(points)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="llsflow-tracking", daemon=True)
                self._thread.start()
            if len(self._points) >= BATCH_POINTS:
                self._wake.notify()

    def flush(self) -> bool:
        """Write all that waits; False when some of it stays in the spool."""
        self._write_points()
        with self._order:
            return not self.spool or self._drain(forced=True)

    def close(self) -> bool:
        """Write all that waits and end the thread; False when some of it stays in the spool."""
        if self._closed:
            return not self.spool
        self._closed = True
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
        written = self.flush()
        self.spool.close()
        return written

    def _write(self) -> None:
        while not self._stopping:
            with self._wake:
                if len(self._points) < BATCH_POINTS and not self._stopping:
                    self._wake.wait(BATCH_SECONDS)
            self._write_points()

    def _write_points(self) -> None:
        # the order lock is taken first: two writers never swap their batches
        with self._order:
            with self._wake:
                points, self._points = self._points, []
            if points:
                self.submit({"op": "metrics", "points": points})

    def _apply(self, op: Operation) -> str:
        if not self.target.run_id and op["op"] != "open":
            # an earlier process began the run in the store and wrote only a part of what followed
            self.target.run_id = find_run(self.target, self.spool.ref)
        return apply(self.target, op)

    def _drain(self, *, forced: bool) -> bool:
        if not forced and time.monotonic() < self._retry_at:
            return False
        waiting = self.spool.read()
        for done, op in enumerate(waiting):
            try:
                self._apply(op)
            except Exception as error:
                if refused(error):
                    self._drop(op, error)
                    continue
                self._put_off()
                self.spool.replace(waiting[done:])
                return False
        self.spool.replace([])
        self._pause = RETRY_SECONDS[0]
        if self.spool.path.parent in _told:
            _told.discard(self.spool.path.parent)
            log.warning("MLflow takes records again; what waited is written")
        return True

    def _failed(self, op: Operation, error: Exception) -> str:
        if refused(error):
            self._drop(op, error)
            return ""
        self._put_off()
        self.spool.append(op)
        if self.spool.path.parent not in _told:
            _told.add(self.spool.path.parent)
            log.warning(
                "MLflow does not take records (%s); the run goes on, they wait in %s and are written later",
                _first_line(error),
                self.spool.path.parent,
            )
        return ""

    def _put_off(self) -> None:
        self._retry_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, RETRY_SECONDS[1])

    def _drop(self, op: Operation, error: Exception) -> None:
        log.warning("MLflow refuses a record of kind %r and it is left out: %s", op["op"], _first_line(error))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

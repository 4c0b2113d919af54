"""Traces of turns on their way to MLflow: taken at once, and written by a process that everything else goes before."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
from collections import deque
from collections.abc import Sequence

from llsflow.agents.traces import EndedTurn, trace_of
from llsflow.api.aside import Aside
from llsflow.schema.traces import TurnTrace
from llsflow.tracking.traces import leave, write_traces

BATCH_TRACES = 100
BATCH_BYTES = 2_000_000
"""Most of one batch: to hand over more would keep this process from answering for milliseconds."""
BATCH_SECONDS = 0.5
"""How long a trace waits for others."""
WAITING_TRACES = 10_000
WAITING_BYTES = 20_000_000
"""Most that waits while MLflow takes none; the oldest leave."""
RETRY_SECONDS = (1.0, 60.0)
"""Shortest and longest pause before a store that failed is tried again."""
CLOSING_SECONDS = 5.0
"""How long the end waits for what is left to be written."""
NICENESS = 19
"""Of the process that writes: what has none goes before."""

logger = logging.getLogger("llsflow.api")


def write_behind(turns: Sequence[bytes], uri: str | None, experiment: str) -> list[str]:
    """Write the traces of turns, pickled (see `write_traces`), after lowering this process's priority."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    return write_traces(_traces(turns), uri, experiment)


def _traces(turns: Sequence[bytes]) -> list[TurnTrace]:
    # of what this server itself has pickled
    return [trace_of(pickle.loads(turn)) for turn in turns]  # noqa: S301


class TraceShipper:
    """Takes traces without waiting, and has them written; what fails is tried again, and no failure reaches a turn."""

    def __init__(self, experiment: str, uri: str | None = None, aside: Aside | None = None) -> None:
        """Make one that writes to an experiment at `uri` (null: MLFLOW_TRACKING_URI, or under LLSFLOW_HOME).

        `aside` is closed with it.
        """
        self.experiment = experiment
        self.uri = uri
        self.dropped = 0
        """Traces that were lost: too many waited, or they were refused, or could not be put on disk at the end."""
        self._aside = aside or Aside(processes=1)
        self._wake = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._under_way: list[tuple[bytes, int]] = []
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        """Until a store that failed is tried again; 0: it did not fail."""
        self._closing = False
        self._stopped = False
        self._overflowed = False
        self._told: set[str] = set()

    def take(self, turn: EndedTurn) -> None:
        """Take a turn whose trace is to be written; never waits or raises."""
        trace = pickle.dumps(turn)
        size = len(trace)
        with self._wake:
            if self._closing:
                self.dropped += 1
                return
            self._waiting.append((trace, size))
            self._bytes += size
            self._drop_oldest()
            if self._thread is None:
                thread = threading.Thread(target=self._ship, name="traces", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads just now: the next trace tries again
                    thread.start()
                    self._thread = thread
            if len(self._waiting) in (1, BATCH_TRACES):
                self._wake.notify()

    def close(self) -> None:
        """Write what is left within CLOSING_SECONDS, or put it on disk for the next server, and end the process."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)
        with self._wake:
            self._stopped = True
        self._aside.close()
        if self._thread is not None:
            self._thread.join(1.0)
        with self._wake:
            left = [trace for trace, _ in (*self._under_way, *self._waiting)]
            self._under_way = []
            self._waiting.clear()
        if left:
            self._leave(left)

    def _leave(self, left: Sequence[bytes]) -> None:
        try:
            folder = leave(_traces(left), self.uri, self.experiment)
        except OSError as error:
            self.dropped += len(left)
            logger.warning("%d traces are lost: MLflow took none, and the disk neither (%s)", len(left), error)
        else:
            logger.warning("%d traces wait in %s; they are written with the next ones", len(left), folder)

    def _ship(self) -> None:
        while batch := self._next():
            try:
                refusals = self._aside.run(write_behind, batch, self.uri, self.experiment)
            except Exception as error:
                self._put_back(str(error).partition("\n")[0] or type(error).__name__)
            else:
                self._written(refusals)
            if self._overflowed:
                self._tell("overflow", "more traces wait for MLflow than are kept: the oldest are dropped")

    def _next(self) -> list[bytes]:
        """Return the next traces once there are enough, or it is time; none at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._waiting)
            if self._pause:
                self._wake.wait_for(lambda: self._closing, self._pause)
            else:
                self._wake.wait_for(lambda: self._closing or len(self._waiting) >= BATCH_TRACES, BATCH_SECONDS)
            if self._stopped:
                return []
            size = 0
            while self._waiting and len(self._under_way) < BATCH_TRACES and size < BATCH_BYTES:
                self._under_way.append(self._waiting.popleft())
                size += self._under_way[-1][1]
            self._bytes -= size
            return [trace for trace, _ in self._under_way]

    def _put_back(self, why: str) -> None:
        with self._wake:
            self._waiting.extendleft(reversed(self._under_way))
            self._bytes += sum(size for _, size in self._under_way)
            self._under_way = []
            self._drop_oldest()
            self._pause = min(max(2 * self._pause, RETRY_SECONDS[0]), RETRY_SECONDS[1])
            if self._closing:
                self._stopped = True
                return
        self._tell(why, "MLflow takes no traces (%s); turns go on, and their traces are written later", why)

    def _written(self, refusals: Sequence[str]) -> None:
        with self._wake:
            self._under_way = []
            self.dropped += len(refusals)
            back, self._pause = bool(self._pause), 0.0
            if back:
                self._told.clear()
                self._overflowed = False
        if back:
            logger.warning("MLflow takes traces again; %d were dropped since the start", self.dropped)
        for refusal in refusals[:1]:
            self._tell("refused", "MLflow refuses a trace, and it is left out: %s", refusal)

    def _drop_oldest(self) -> None:
        while len(self._waiting) > WAITING_TRACES or self._bytes > WAITING_BYTES:
            self._bytes -= self._waiting.popleft()[1]
            self.dropped += 1
            self._overflowed = True

    def _tell(self, cause: str, text: str, *words: object) -> None:
        if cause not in self._told:
            self._told.add(cause)
            logger.warning(text, *words)

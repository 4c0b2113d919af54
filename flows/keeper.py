"""Keeps the services of one machine up: started in order, watched, started again when they end, and ended together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from llsflow.errors import LlsflowError

logger = logging.getLogger("llsflow.flows")

LOOK_SECONDS = 0.2
BACKOFF_SECONDS = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Before a service that ended is started again: the first time at once, then ever later."""

STEADY_SECONDS = 60.0
"""A service that lived this long had a good start: its next end counts as its first."""


class Service(Protocol):
    """Something that runs beside the API."""

    @property
    def name(self) -> str:
        """What health calls it."""

    @property
    def after(self) -> Sequence[str]:
        """Services that must be up before it is started."""

    def start(self) -> None:
        """Start it, and return at once.

        Raises:
            LlsflowError: it cannot be started.
        """

    def end_of_it(self) -> str | None:
        """Return how it ended; None: it lives."""

    def ready(self) -> str | None:
        """Return its address (or an empty text) once it is up; None: not yet."""

    def stop(self) -> None:
        """End it, and wait for its end."""


@dataclass
class Kept:
    """A service and where it is."""

    service: Service
    state: str = "waiting"
    """waiting, starting, ready, down, stopped."""
    why: str = ""
    url: str = ""
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    ends: int = 0
    began: float = 0.0
    next_start: float = 0.0

    def become(self, state: str, why: str = "") -> None:
        """Take a new state."""
        if (state, why) != (self.state, self.why):
            self.state, self.why, self.since = state, why, datetime.now(UTC)


class Keeper:
    """The services of this machine, each brought up once those before it are up."""

    def __init__(
        self,
        services: Sequence[Service],
        on_ready: Callable[[str, str], None] = lambda name, url: None,
        on_return: Callable[[str], None] = lambda name: None,
    ) -> None:
        """Make a keeper; nothing is started yet.

        Args:
            services: in the order in which they are started; ended in the other.
            on_ready: told the name and the address of each that comes up.
            on_return: told the name of each that is up again after an end that nobody asked for.
        """
        self._kept = {service.name: Kept(service) for service in services}
        self._on_ready, self._on_return = on_ready, on_return
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to bring the services up, and return at once."""
        self._thread.start()

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the state of every service, since when, why and where."""
        return {
            name: {
                "state": kept.state,
                "since": kept.since.isoformat(timespec="seconds"),
                **({"why": kept.why} if kept.why else {}),
                **({"url": kept.url} if kept.url else {}),
            }
            for name, kept in self._kept.items()
        }

    def url(self, name: str) -> str | None:
        """Return the address of a service that is up, or None."""
        kept = self._kept.get(name)
        return kept.url if kept and kept.state == "ready" else None

    def stop(self) -> None:
        """End every service, each once those that came after it have ended; the others at the same time."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        ended = {name: threading.Event() for name in self._kept}
        ending = [
            threading.Thread(target=self._end, args=(kept, ended), name=f"end-{name}", daemon=True)
            for name, kept in self._kept.items()
        ]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def _end(self, kept: Kept, ended: Mapping[str, threading.Event]) -> None:
        name = kept.service.name
        try:
            for other in self._kept.values():
                if name in other.service.after:
                    ended[other.service.name].wait()
            if kept.state in ("starting", "ready"):
                kept.service.stop()
            kept.become("stopped")
        finally:
            ended[name].set()

    def _keep(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            for kept in self._kept.values():
                try:
                    self._look(kept)
                except LlsflowError as error:
                    self._ended(kept, str(error))
                except Exception as error:
                    logger.exception("service %s", kept.service.name)
                    self._ended(kept, f"{type(error).__name__}: {error}")

    def _look(self, kept: Kept) -> None:
        if kept.state in ("starting", "ready"):
            if (how := kept.service.end_of_it()) is not None:
                self._ended(kept, how)
            elif kept.state == "starting" and (url := kept.service.ready()) is not None:
                self._is_up(kept, url)
        elif self._may_start(kept):
            kept.began = time.monotonic()
            kept.service.start()
            kept.become("starting")

    def _is_up(self, kept: Kept, url: str) -> None:
        kept.url = url
        kept.become("ready")
        self._on_ready(kept.service.name, url)
        if kept.ends:
            self._on_return(kept.service.name)

    def _may_start(self, kept: Kept) -> bool:
        before = [self._kept[name] for name in kept.service.after if name in self._kept]
        return time.monotonic() >= kept.next_start and all(other.state == "ready" for other in before)

    def _ended(self, kept: Kept, why: str) -> None:
        if time.monotonic() - kept.began > STEADY_SECONDS:
            kept.ends = 0
        wait = BACKOFF_SECONDS[min(kept.ends, len(BACKOFF_SECONDS) - 1)]
        kept.ends += 1
        kept.next_start = time.monotonic() + wait
        kept.become("down", why)
        again = f"in {wait:.0f} s" if wait else "at once"
        logger.warning("%s is down (%s): it is started again %s", kept.service.name, why, again)

"""How the parts of this server are, as it was found just now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from anyio import to_thread

from llsflow.errors import LlsflowError
from llsflow.schema.health import HealthPart, PartState

if TYPE_CHECKING:
    from llsflow.store import Store

FRESH_SECONDS, STALE_SECONDS = 1.0, 2.0
"""Until they are looked at anew, and until somebody waits for that."""

STARTED = datetime.now(UTC)

Found = Mapping[str, HealthPart]


class Parts:
    """How the parts are: looked at in a thread, once for all who ask; who asks often never waits for it.

    Used in one event loop.
    """

    def __init__(self, store: Store, beside: Callable[[], Found]) -> None:
        """Take the store, and what tells of those that run beside the API."""
        self._store, self._beside = store, beside
        self._found: tuple[float, Found] | None = None
        self._looking: asyncio.Task[Found] | None = None

    async def now(self) -> Found:
        """Return how each is, or was less than two seconds ago."""
        at, found = self._found or (0.0, None)
        age = time.monotonic() - at
        if age >= FRESH_SECONDS and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        if (found is None or age >= STALE_SECONDS) and self._looking is not None:
            # not cancelled with one who waits: others do too
            return await asyncio.shield(self._looking)
        return found or {}

    async def _look(self) -> Found:
        at = time.monotonic()
        found = await to_thread.run_sync(self._every)
        self._found = at, found
        return found

    def _every(self) -> Found:
        api = HealthPart(state=PartState.OK, since=STARTED)
        try:
            self._store.ask()
            store = HealthPart(state=PartState.OK, since=STARTED, url=self._store.url_shown)
        except LlsflowError as error:
            store = HealthPart(state=PartState.DOWN, why=str(error))
        return {"api": api, "store": store, **self._beside()}

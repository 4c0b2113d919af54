"""A reranker in memory and the requests that it answers, a batch of items at a time."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llsflow.errors import UnavailableError
from llsflow.models.lanes import Counts, NotANumber, NotEnoughMemory, Waiting, free_memory

if TYPE_CHECKING:
    from llsflow.models.ranking import RankingModel

logger = logging.getLogger("llsflow.engine")

WAITING = 64
"""Requests that a reranker holds; others wait before it."""


@dataclass(eq=False)
class RankTicket(Waiting[list[float]]):
    """A query and its items, which wait for their scores."""

    query: str
    items: Sequence[str]
    scores: dict[int, float] = field(default_factory=dict)
    """Those that are known, by the item's place."""

    @property
    def left(self) -> list[int]:
        """Return the places of the items without a score, the longest first: too little memory shows at once."""
        unknown = (place for place in range(len(self.items)) if place not in self.scores)
        return sorted(unknown, key=lambda place: -len(self.items[place]))


class RankingLane:
    """One reranker and its requests, the first come first; used by the engine's thread only."""

    def __init__(self, model_id: str, model: RankingModel, batch_size: int, counts: Counts) -> None:
        self.model_id, self.model, self.batch_size, self.counts = model_id, model, batch_size, counts
        self.used = time.monotonic()
        self._tickets: deque[RankTicket] = deque()
        self._most = batch_size
        """Items that memory has room for, as far as known."""

    def __len__(self) -> int:
        """Return how many requests are not answered yet."""
        return len(self._tickets)

    @property
    def has_room(self) -> bool:
        """Return whether another request can be taken."""
        return len(self) < WAITING

    @property
    def open(self) -> Sequence[RankTicket]:
        """Return the requests that are not answered yet; from any thread."""
        return list(self._tickets.copy())

    def take(self, ticket: Waiting[list[float]]) -> None:
        """Have a request answered after those before it."""
        assert isinstance(ticket, RankTicket)  # noqa: S101 - the engine's door told the two apart
        self.used = time.monotonic()
        self._tickets.append(ticket)

    def step(self) -> None:
        """Score some items of the first request; where memory does not suffice, fewer at a time."""
        from llsflow.models.local import out_of_memory

        self.used = time.monotonic()
        ticket = self._tickets[0]
        if ticket.dropped:
            self.counts.dropped += 1
            self._end(ticket, UnavailableError("the request was withdrawn"))
            return
        try:
            places = ticket.left[: self._most]
            found = self.model.scores(ticket.query, [ticket.items[place] for place in places])
        except Exception as error:
            if not out_of_memory(error):
                logger.exception("ranking by %s failed", self.model_id)
                self._fail(ticket, UnavailableError(f"the inference engine failed: {type(error).__name__}"))
                return
        else:
            self._told(ticket, places, found)
            return
        # out of the except block: its traceback held what filled the memory
        free_memory()
        if self._most == 1:
            self._fail(ticket, NotEnoughMemory("out of memory with one item: send shorter ones"))
        self._most = max(1, self._most // 2)

    def fail(self, error: Exception) -> None:
        """Fail every request."""
        for ticket in self.open:
            self._fail(ticket, error)

    def _told(self, ticket: RankTicket, places: Sequence[int], found: Sequence[float]) -> None:
        self.counts.batches += 1
        if any(math.isnan(score) for score in found):
            self._fail(ticket, NotANumber("the reranker's output is not a number"))
            return
        ticket.scores |= dict(zip(places, found, strict=True))
        if len(ticket.scores) == len(ticket.items):
            self.counts.answered += 1
            self._tickets.remove(ticket)
            ticket.answered.set_result([ticket.scores[place] for place in range(len(ticket.items))])
            self._most = self.batch_size

    def _fail(self, ticket: RankTicket, error: Exception) -> None:
        self.counts.failed += 1
        self._end(ticket, error)

    def _end(self, ticket: RankTicket, error: Exception) -> None:
        self._tickets.remove(ticket)
        ticket.fail(error)

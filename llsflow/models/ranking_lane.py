"""A reranker or embedding model in memory and the requests that it answers, a batch of items at a time."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llsflow.errors import UnavailableError
from llsflow.models.lanes import Counts, NotANumber, NotEnoughMemory, Waiting, free_memory

if TYPE_CHECKING:
    from llsflow.models.ranking import RankingModel

logger = logging.getLogger("llsflow.engine")

T = TypeVar("T")

WAITING = 64
"""Requests that a reranker holds; others wait before it."""


@dataclass(eq=False)
class ItemsTicket(Waiting[list[T]], ABC):
    """Texts that wait for what the model makes of each."""

    items: Sequence[str]
    found: dict[int, T] = field(default_factory=dict, kw_only=True)
    """What is known, by the item's place."""

    @property
    def left(self) -> list[int]:
        """Return the places of the items that are not done, the longest first: too little memory shows at once."""
        unknown = (place for place in range(len(self.items)) if place not in self.found)
        return sorted(unknown, key=lambda place: -len(self.items[place]))

    @abstractmethod
    def made_by(self, model: RankingModel, items: Sequence[str]) -> Sequence[T]:
        """Return what the model makes of some of the items."""

    @staticmethod
    @abstractmethod
    def is_number(made: T) -> bool:
        """Return whether what was made is no NaN."""


@dataclass(eq=False)
class RankTicket(ItemsTicket[float]):
    """A query and its items, which wait for their scores."""

    query: str

    def made_by(self, model: RankingModel, items: Sequence[str]) -> Sequence[float]:
        """Return the items' scores."""
        return model.scores(self.query, items)

    @staticmethod
    def is_number(made: float) -> bool:
        """Return whether it is one."""
        return not math.isnan(made)


@dataclass(eq=False)
class EmbeddingTicket(ItemsTicket[list[float]]):
    """Texts that wait for their vectors."""

    def made_by(self, model: RankingModel, items: Sequence[str]) -> Sequence[list[float]]:
        """Return the items' vectors."""
        return model.vectors(items)

    @staticmethod
    def is_number(made: list[float]) -> bool:
        """Return whether all of it are numbers."""
        return not any(map(math.isnan, made))


class RankingLane:
    """One reranker and its requests, the first come first; used by the engine's thread only."""

    def __init__(self, model_id: str, model: RankingModel, batch_size: int, counts: Counts) -> None:
        self.model_id, self.model, self.batch_size, self.counts = model_id, model, batch_size, counts
        self.used = time.monotonic()
        self._tickets: deque[ItemsTicket[Any]] = deque()
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
    def open(self) -> Sequence[ItemsTicket[Any]]:
        """Return the requests that are not answered yet; from any thread."""
        return list(self._tickets.copy())

    def take(self, ticket: Waiting[Any]) -> None:
        """Have a request answered after those before it."""
        assert isinstance(ticket, ItemsTicket)  # noqa: S101 - the engine's door told the two apart
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
            found = ticket.made_by(self.model, [ticket.items[place] for place in places])
        except Exception as error:
            if not out_of_memory(error):
                logger.exception("a request to %s failed", self.model_id)
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

    def _told(self, ticket: ItemsTicket[T], places: Sequence[int], found: Sequence[T]) -> None:
        self.counts.batches += 1
        if not all(map(ticket.is_number, found)):
            self._fail(ticket, NotANumber("the model's output is not a number"))
            return
        ticket.found |= dict(zip(places, found, strict=True))
        if len(ticket.found) == len(ticket.items):
            self.counts.answered += 1
            self._tickets.remove(ticket)
            ticket.answered.set_result([ticket.found[place] for place in range(len(ticket.items))])
            self._most = self.batch_size

    def _fail(self, ticket: ItemsTicket[Any], error: Exception) -> None:
        self.counts.failed += 1
        self._end(ticket, error)

    def _end(self, ticket: ItemsTicket[Any], error: Exception) -> None:
        self._tickets.remove(ticket)
        ticket.fail(error)

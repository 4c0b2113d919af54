"""A warm model and the requests that it answers: they join while others are under way, and leave as they end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from llsflow.data.conversation import Conversation
from llsflow.errors import LlsflowError, UnavailableError
from llsflow.models.generation import Finish
from llsflow.models.responses import Call, ResponseReader, Said
from llsflow.schema.inference import ResponseFormat
from llsflow.schema.models import ModelConfig
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    from llsflow.models.decode import Batch, Row
    from llsflow.models.local import LocalModel
    from llsflow.models.prefixes import Prefixes
    from llsflow.models.text import GrowingText

logger = logging.getLogger("llsflow.engine")

READ_AT_ONCE = 4096
"""Tokens of new prompts that are read between two tokens of those under way, who wait for it."""
KEPT_TOKENS = 16_384
"""Tokens of earlier texts whose states a model keeps."""


class NotEnoughMemory(LlsflowError):
    """This one request does not fit into memory, even alone."""


class NotANumber(LlsflowError):
    """The model's output for this request is not a number."""


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    finish: Finish
    prompt_tokens: int
    tokens: int
    reasoning: str = ""
    """What the model wrote before the answer, where its chat template has marks for that."""
    calls: tuple[Call, ...] = ()


A = TypeVar("A")


@dataclass(eq=False)
class Waiting(Generic[A]):
    """A request that waits for its answer."""

    model: ModelConfig
    answered: Future[A] = field(default_factory=Future, kw_only=True)
    """The answer; ValueError: the model refuses the request; LlsflowError: why there is none."""
    dropped: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.answered.set_running_or_notify_cancel()  # nobody but the engine ends it

    def drop(self) -> None:
        """Do not want the answer any longer; from any thread."""
        self.dropped = True

    def fail(self, error: Exception) -> None:
        """Say why there is no answer, unless there is one."""
        if not self.answered.done():
            self.answered.set_exception(error)


@dataclass(eq=False)
class Ticket(Waiting[Answer]):
    """A conversation or a text that waits for what the model says to it."""

    asked: Conversation | str
    """A conversation, or a text that is gone on with as it is."""
    sampling: SamplingParams
    seed: int
    response_format: ResponseFormat | None = None
    must_call: bool = False
    """The answer is held to a call: `response_format` is its schema."""
    one_call: bool = False
    """Only the first call of the answer counts."""
    on_said: Callable[[Said], None] | None = None
    """Told in the engine's thread what the answer has grown by."""
    prompt: str = ""
    row: Row | None = None
    text: GrowingText | None = None
    reader: ResponseReader | None = None
    """Takes the answer apart; None: all of it is text."""

    def drop(self) -> None:
        """Do not want the answer any longer; from any thread."""
        super().drop()
        if self.row is not None:
            self.row.dropped = True


@dataclass
class Counts:
    """What the engine did since it started."""

    answered: int = 0
    failed: int = 0
    dropped: int = 0
    batches: int = 0
    """Groups of prompts that were read together."""
    read_tokens: int = 0
    """Of prompts."""
    shared_tokens: int = 0
    """Of prompts, that had been read before."""


class Lane:
    """One model in memory, and its requests; used by the engine's thread only."""

    def __init__(
        self, model_id: str, local: LocalModel, batch_size: int, counts: Counts, put_on: Callable[[], None]
    ) -> None:
        from llsflow.models.prefixes import Prefixes

        self.model_id, self.local, self.batch_size, self.counts = model_id, local, batch_size, counts
        self._put_on = put_on
        """Puts this model's adapter on the weights that it shares with others."""
        self.used = time.monotonic()
        self._most = batch_size
        """Rows that memory has room for, as far as known."""
        self._prefixes: Prefixes = Prefixes(KEPT_TOKENS)
        self._joining: deque[Ticket] = deque()
        self._batch: Batch | None = None
        self._tickets: dict[Row, Ticket] = {}

    def __len__(self) -> int:
        """Return how many requests are not answered yet."""
        return len(self._tickets)

    @property
    def has_room(self) -> bool:
        """Return whether another request can be taken."""
        return len(self) < self.batch_size

    @property
    def open(self) -> Sequence[Ticket]:
        """Return the requests that are not answered yet; from any thread."""
        return list(self._tickets.copy().values())

    def take(self, ticket: Waiting[Answer]) -> None:
        """Make the ticket's row; a request that the model cannot take fails alone."""
        assert isinstance(ticket, Ticket)  # noqa: S101 - the engine's door told the two apart
        self.used = time.monotonic()
        try:
            ids = self._prompt(ticket)
            ticket.row = self.local.row(ids, ticket.sampling, seed=ticket.seed, response_format=ticket.response_format)
        except (ValueError, LlsflowError) as error:
            self._fail(ticket, ValueError(str(error)))
            return
        ticket.reader = self._reader(ticket)
        if ticket.on_said:
            from llsflow.models.text import GrowingText

            marks = ticket.reader is not None
            ticket.text = GrowingText(self.local.tokenizer, ticket.sampling.stop or (), special=marks)
        ticket.row.dropped = ticket.dropped
        self._tickets[ticket.row] = ticket
        self._joining.append(ticket)

    def step(self) -> None:
        """Give every request its next token; where memory does not suffice, fewer go on together."""
        from llsflow.models.local import out_of_memory

        self.used = time.monotonic()
        try:
            self._put_on()
            self._join()
            if self._batch and self._batch.rows:
                self._told(self._batch, self._batch.step())
            if self._batch and not self._batch.rows:
                self._batch = None
            if not self._tickets:
                self._most = self.batch_size
            return
        except Exception as error:
            if not out_of_memory(error):
                logger.exception("a batch of %s failed", self.model_id)
                self.fail(UnavailableError(f"the inference engine failed: {type(error).__name__}"))
                return
        # out of the except block: its traceback held what filled the memory
        self._make_do()

    def fail(self, error: Exception) -> None:
        """Fail every request."""
        for ticket in self.open:
            self._fail(ticket, error)
        self._tickets.clear()
        self._joining.clear()
        self._batch = None

    def _prompt(self, ticket: Ticket) -> list[int]:
        match ticket.asked:
            case str(text):
                ticket.prompt = text
            case conversation:
                ticket.prompt = self.local.render(conversation)
        return self.local.encode([ticket.prompt])[0]

    def _reader(self, ticket: Ticket) -> ResponseReader | None:
        """Return what takes the answer apart: where there is reasoning, or tools to be called."""
        if isinstance(ticket.asked, str):
            return None
        found, tools = self.local.responses, bool(ticket.asked.tools)
        if not tools and not found.has_reasoning:
            return None
        return found.reader(ticket.prompt, calls=tools, must_call=ticket.must_call, one=ticket.one_call)

    def _join(self) -> None:
        """Read the prompts of those that are new, as far as there is room."""
        from llsflow.models.decode import Batch

        free = self._most - (len(self._batch.rows) if self._batch else 0)
        if self._batch and not self._batch.grows:
            return
        new: list[Row] = []
        tokens = 0
        while self._joining and len(new) < free and (not new or tokens < READ_AT_ONCE):
            ticket = self._joining.popleft()
            if ticket.row and not self._gone(ticket):
                new.append(ticket.row)
                tokens += len(ticket.row.text)
        if not new:
            return
        groups = self._prefixes.groups([row.text for row in new])
        for prefix, places in groups:
            rows = [new[place] for place in places]
            batch = Batch(self.local.model, rows, self.local.ends, self.local.pad, prefix, keeps_read=True)
            self.counts.batches += 1
            self.counts.read_tokens += sum(len(row.text) for row in rows)
            self.counts.shared_tokens += len(prefix.ids) * len(rows) if prefix else 0
            self._told(batch, batch.step())
            if self._batch is None:
                self._batch = batch
            else:
                self._batch.join(batch)

    def _told(self, batch: Batch, left: Sequence[Row]) -> None:
        """Tell what came to the requests."""
        for row in left:
            self._end(row)
        for row in batch.rows:
            ticket = self._tickets[row]
            if ticket.on_said and ticket.text and (more := ticket.text.more(row.made)):
                said = ticket.reader.more(more) if ticket.reader else Said(more)
                if said != Said():
                    ticket.on_said(said)

    def _end(self, row: Row) -> None:
        ticket = self._tickets[row]
        if self._gone(ticket):
            return
        del self._tickets[row]
        if row.refused:
            self._fail(ticket, NotANumber(row.refused))
            return
        if row.read:
            self._prefixes.keep(row.read)
            row.read = None
        made = self.local.generation(row, ticket.prompt, special=ticket.reader is not None)
        rest = ticket.text.rest(made.text) if ticket.on_said and ticket.text else made.text
        said = ticket.reader.rest(rest) if ticket.reader else Said(rest)
        if ticket.on_said and said != Said():
            ticket.on_said(said)
        whole = ticket.reader.made if ticket.reader else Said(made.text)
        self.counts.answered += 1
        ticket.answered.set_result(
            Answer(whole.text, made.finish, len(row.prompt), made.tokens, whole.reasoning, whole.calls)
        )

    def _make_do(self) -> None:
        """Go on with half as many rows; a request that is too large alone fails."""
        self._batch = None
        self._prefixes.clear()
        free_memory()
        waiting = {ticket.row for ticket in self._joining}
        tried = [row for row in self._tickets if row not in waiting]
        for row in tried:
            if not row.going:  # it had its last token before memory ran out
                self._end(row)
        again = [row for row in tried if row in self._tickets]
        if len(tried) == 1 and again:
            tokens = len(again[0].prompt) + again[0].limit
            message = f"out of memory with up to {tokens:,} tokens: set a smaller max_tokens"
            self._fail(self._tickets.pop(again[0]), NotEnoughMemory(message))
            return
        self._most = max(1, len(tried) // 2)
        self._joining.extendleft(self._tickets[row] for row in reversed(again))

    def _gone(self, ticket: Ticket) -> bool:
        """Return whether nobody wants the answer any longer; it is then forgotten."""
        if ticket.dropped and ticket.row:
            self._tickets.pop(ticket.row, None)
        if ticket.dropped and not ticket.answered.done():
            self.counts.dropped += 1
            ticket.fail(UnavailableError("the request was withdrawn"))
        return ticket.dropped

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if not ticket.answered.done():
            self.counts.failed += 1
            ticket.fail(error)


def free_memory() -> None:
    """Give back what nothing holds any longer."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

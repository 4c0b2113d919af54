"""The embedded engine: warm models in one process, and the requests that wait for them, answered in batches."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llsflow.data.conversation import Conversation
from llsflow.errors import LlsflowError, UnavailableError
from llsflow.models.catalogue import ready_folder
from llsflow.models.describe import weight_files
from llsflow.schema.models import ModelConfig
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    from llsflow.models.decode import Finish, Row
    from llsflow.models.local import LocalModel

logger = logging.getLogger("llsflow.engine")


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


@dataclass(eq=False)
class Ticket:
    """A request that waits for its answer."""

    model: ModelConfig
    conversation: Conversation
    sampling: SamplingParams
    seed: int
    answered: Future[Answer] = field(default_factory=Future)
    """The answer; ValueError: the model refuses the request; LlsflowError: why there is none."""
    dropped: bool = False
    prompt: str = ""
    row: Row | None = None

    def __post_init__(self) -> None:
        self.answered.set_running_or_notify_cancel()  # nobody but the engine ends it

    def drop(self) -> None:
        """Do not want the answer any longer; from any thread."""
        self.dropped = True
        if self.row is not None:
            self.row.dropped = True

    def fail(self, error: Exception) -> None:
        """Say why there is no answer, unless there is one."""
        if not self.answered.done():
            self.answered.set_exception(error)


@dataclass
class Counts:
    """What the engine did since it started."""

    answered: int = 0
    failed: int = 0
    dropped: int = 0
    batches: int = 0


State = Literal["starting", "ready", "failed"]
LoadModel = Callable[[ModelConfig], "LocalModel"]


class Engine:
    """Answers tickets in one thread: those that wait for the same model are generated together."""

    def __init__(self, *, max_models: int, batch_size: int, device: str = "auto", dtype: str = "fp32") -> None:
        self.max_models, self.batch_size, self.device, self.dtype = max_models, batch_size, device, dtype
        self.state: State = "starting"
        self.why = ""
        """Why it failed to start."""
        self.counts = Counts()
        self._waiting: deque[Ticket] = deque()
        self._under_way: Sequence[Ticket] = ()
        self._loaded: OrderedDict[str, tuple[str, LocalModel]] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Import what generating needs and begin to answer, in the background."""
        self._thread.start()

    def submit(self, ticket: Ticket) -> None:
        """Have a ticket answered."""
        with self._changed:
            if self._closing or self.state == "failed":
                ticket.fail(UnavailableError(self.why or "the inference engine is stopping"))
                return
            self._waiting.append(ticket)
            self._changed.notify()

    def close(self, patience_seconds: float = 3.0) -> bool:
        """Stop after the token under way, and return whether that was in time."""
        with self._changed:
            self._closing = True
            for ticket in self._under_way:
                ticket.drop()
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(patience_seconds)
        for ticket in [*self._under_way, *self._waiting]:
            ticket.fail(UnavailableError("the inference engine was stopped"))
        return not self._thread.is_alive()

    def health(self) -> dict[str, Any]:
        """Return the state, the models in memory, how many requests wait, and the counts."""
        return {
            "status": self.state,
            **({"why": self.why} if self.why else {}),
            "models": [model_id for model_id, _ in self._loaded.copy().values()],
            "waiting": len(self._waiting) + sum(not ticket.answered.done() for ticket in self._under_way),
            **vars(self.counts),
        }

    def _work(self) -> None:
        try:
            import llsflow.models.decode
            import llsflow.models.local  # noqa: F401 - what takes seconds to import is ready for the first request

            self.state = "ready"
        except Exception as error:
            logger.exception("the inference engine cannot start")
            self.why = f"the inference engine cannot start: {type(error).__name__}: {error}"
            self.state = "failed"
            self._closing = True
        while batch := self._next():
            try:
                self._serve(batch)
            except Exception as error:
                logger.exception("a batch failed")
                for ticket in batch:
                    self._fail(ticket, UnavailableError(f"the inference engine failed: {type(error).__name__}"))
            with self._changed:
                self._under_way = ()
        for ticket in self._waiting:
            ticket.fail(UnavailableError(self.why or "the inference engine is stopping"))

    def _next(self) -> list[Ticket]:
        """Wait for tickets, and return those that ask the same model as the oldest; empty: the engine stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                return []
            model = self._waiting[0].model
            batch = [ticket for ticket in self._waiting if ticket.model == model][: self.batch_size]
            for ticket in batch:
                self._waiting.remove(ticket)
            self._under_way = batch
            return batch

    def _serve(self, batch: Sequence[Ticket]) -> None:
        wanted = [ticket for ticket in batch if not self._gone(ticket)]
        if not wanted:
            return
        try:
            local = self._model(wanted[0].model)
        except LlsflowError as error:
            for ticket in wanted:
                self._fail(ticket, UnavailableError(f"model {ticket.model.model_id!r} cannot be loaded: {error}"))
            return
        ready = [ticket for ticket in wanted if self._prepare(local, ticket)]
        if ready:
            self._decode(local, ready)

    def _prepare(self, local: LocalModel, ticket: Ticket) -> bool:
        """Make the ticket's row; a request that the model cannot take fails alone."""
        try:
            ticket.prompt = local.render(ticket.conversation)
            ticket.row = local.row(local.encode([ticket.prompt])[0], ticket.sampling, seed=ticket.seed)
        except (ValueError, LlsflowError) as error:
            self._fail(ticket, ValueError(str(error)))
            return False
        ticket.row.dropped = ticket.dropped
        return True

    def _decode(self, local: LocalModel, tickets: Sequence[Ticket]) -> None:
        """Generate together; where memory does not suffice, in halves."""
        from llsflow.models.local import out_of_memory

        by_row = {id(ticket.row): ticket for ticket in tickets}

        def on_step(ended: Sequence[Row]) -> None:
            for row in ended:
                self._end(local, by_row[id(row)])

        self.counts.batches += 1
        try:
            local.decode([ticket.row for ticket in tickets if ticket.row], on_step)
            return
        except Exception as error:
            if not out_of_memory(error):
                raise
        # out of the except block: its traceback held what filled the memory
        self._free()
        left = [ticket for ticket in tickets if not ticket.answered.done() and not self._gone(ticket)]
        if len(tickets) == 1:
            for ticket in left:
                tokens = len(ticket.row.prompt) + ticket.row.limit if ticket.row else 0
                self._fail(
                    ticket, NotEnoughMemory(f"out of memory with up to {tokens:,} tokens: set a smaller max_tokens")
                )
            return
        again = [ticket for ticket in left if self._prepare(local, ticket)]
        for half in (again[: len(tickets) // 2], again[len(tickets) // 2 :]):
            if half:
                self._decode(local, half)

    def _end(self, local: LocalModel, ticket: Ticket) -> None:
        row = ticket.row
        if row is None or self._gone(ticket):
            return
        if row.refused:
            self._fail(ticket, NotANumber(row.refused))
            return
        made = local.generation(row, ticket.prompt)
        self.counts.answered += 1
        ticket.answered.set_result(Answer(made.text, made.finish, len(row.prompt), made.tokens))

    def _gone(self, ticket: Ticket) -> bool:
        """Return whether nobody wants the answer any longer, and count it."""
        if ticket.dropped and not ticket.answered.done():
            self.counts.dropped += 1
            ticket.fail(UnavailableError("the request was withdrawn"))
        return ticket.dropped

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if not ticket.answered.done():
            self.counts.failed += 1
            ticket.fail(error)

    def _model(self, model: ModelConfig) -> LocalModel:
        """Return a model from memory, or from its folder; the one not used for longest makes room for it."""
        folder = ready_folder(model)
        key = f"{model.model_dump_json()}{_stamp(folder)}"
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key][1]
        while len(self._loaded) >= self.max_models:
            self._evict()
        began = time.perf_counter()
        local = self._load(model, folder)
        logger.info("loaded %s from %s in %.1f s", model.model_id, folder, time.perf_counter() - began)
        self._loaded[key] = (model.model_id, local)
        return local

    def _load(self, model: ModelConfig, folder: Path) -> LocalModel:
        from llsflow.models.local import LocalModel, out_of_memory

        while True:
            try:
                return LocalModel.load(
                    folder,
                    dtype=self.dtype,
                    device=self.device,
                    chat_template=model.chat_template,
                    trust_remote_code=model.trust_remote_code,
                )
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if not self._loaded:
                raise NotEnoughMemory("out of memory: take a smaller model, or another device")
            self._evict()

    def _evict(self) -> None:
        _, (model_id, _) = self._loaded.popitem(last=False)
        self._free()
        logger.info("%s left the memory", model_id)

    def _free(self) -> None:
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _stamp(folder: Path) -> str:
    """Return what changes when the model's files do: its answers are always those of the files as they are."""
    files = [*weight_files(folder), folder / "config.json", folder / "tokenizer.json", folder / "chat_template.jinja"]
    return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])

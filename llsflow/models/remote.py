"""Models behind OpenAI-compatible endpoints: the embedded engine, vLLM, Ollama, or a hosted service."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from llsflow.data.conversation import Conversation
from llsflow.errors import ConfigError, LlsflowError, Mistake, Stopped, UnavailableError
from llsflow.models.endpoint import COMPLETION, EMBEDDING, RERANK, Channel, Operation, Reply, Unanswered
from llsflow.models.generation import FILTERED, Generation
from llsflow.models.protocol import request_body, wire
from llsflow.schema.inference import ResponseFormat
from llsflow.schema.models import Endpoint, ModelConfig
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    import aiohttp

MOST_IN_A_ROW = 10
"""Requests that fail one after another before the endpoint itself is taken to be gone; at least as many as at once."""

CLOSING_SECONDS = 5.0
"""Longest wait for connections to be closed when no more answers are wanted."""

Told = Callable[[int, Generation], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class RemoteModel:
    """A model that answers over HTTP, many conversations at once."""

    endpoint: Endpoint
    name: str
    """Its id there."""
    called: str
    """What messages call the endpoint."""
    is_own: bool = False
    """Whether this project's engine answers there."""

    @staticmethod
    def of(model: ModelConfig) -> RemoteModel:
        """Return a model of the configuration that has an endpoint.

        Raises:
            ConfigError: the variable that is to hold the key is not set.
        """
        assert model.endpoint is not None  # noqa: S101 - the caller has looked
        variable = model.endpoint.api_key_env
        if variable and not os.environ.get(variable):
            message = (
                f"the environment variable {variable} is not set: it is to hold the key of {model.endpoint.base_url}"
            )
            raise ConfigError([Mistake("model.endpoint.api_key_env", message)])
        return RemoteModel(
            model.endpoint, model.endpoint.model or model.model_id, f"endpoint {model.endpoint.base_url}"
        )

    @staticmethod
    def of_engine(url: str, model_id: str, *, at_once: int, timeout_seconds: float = 600.0) -> RemoteModel:
        """Return a model of the embedded engine at this address."""
        endpoint = Endpoint(base_url=f"{url}/v1", timeout_seconds=timeout_seconds, retries=0, at_once=at_once)
        return RemoteModel(endpoint, model_id, "the inference engine", is_own=True)

    def answer(
        self,
        asked: Mapping[int, Conversation],
        sampling: SamplingParams,
        *,
        seed: int | None = None,
        response_format: ResponseFormat | None = None,
        on_generation: Told | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> dict[int, Generation]:
        """Return a generation for each conversation, by its place; one that is refused or not answered says why.

        Args:
            asked: conversations by their place.
            sampling: how each is sampled.
            seed: of the draws; each place has one of its own, from this one on. Null: the endpoint's choice.
            response_format: what each answer keeps to.
            on_generation: told each place and its generation as it comes; a failure is held back until another
                request shows that it was of this one.
            stopping: asked now and then.

        Raises:
            NotFoundError: the endpoint has no such model.
            UnavailableError: it does not answer at all, or refuses the key.
            Stopped: `stopping` said so.
        """
        written = {place: wire(conversation) for place, conversation in asked.items()}
        bodies = (
            (
                place,
                {
                    **request_body(self.name, [], sampling, None if seed is None else seed + place, response_format),
                    **body,
                },
            )
            for place, body in written.items()
        )

        def made(place: int, found: Reply | str | Unanswered) -> Generation:
            body = written[place]
            prompt = json.dumps(body if len(body) > 1 else body["messages"], ensure_ascii=False)
            if isinstance(found, str | Unanswered):
                return Generation("", 0, "stop", prompt, str(found), passing=isinstance(found, Unanswered))
            why = FILTERED if found.finish == "content_filter" else None
            return Generation(found.text, found.tokens, found.finish, prompt, why, reasoning=found.reasoning)

        return self._gathered(self._answers(COMPLETION, bodies, stopping), made, on_generation)

    def rank(
        self,
        asked: Mapping[int, tuple[str, Sequence[str]]],
        *,
        on_ranking: Callable[[int, list[float] | ValueError], None] | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> dict[int, list[float] | ValueError]:
        """Return the relevance of each item, of a query and its items by their place; or why there is none.

        Raises:
            NotFoundError: the endpoint has no such model.
            UnavailableError: it does not answer at all, or refuses the key.
            Stopped: `stopping` said so.
        """
        bodies = (
            (place, {"model": self.name, "query": query, "documents": list(items), "top_n": len(items)})
            for place, (query, items) in asked.items()
        )

        def made(place: int, found: Mapping[int, float] | str | Unanswered) -> list[float] | ValueError:
            if isinstance(found, str | Unanswered):
                return ValueError(str(found))
            items = range(len(asked[place][1]))
            if found.keys() != {*items}:
                return ValueError(f"{self.called} scored {len(found)} of {len(items)} items, or others: all are needed")
            return [found[item] for item in items]

        return self._gathered(self._answers(RERANK, bodies, stopping), made, on_ranking)

    def embed(
        self, texts: Mapping[int, str], *, stopping: Callable[[], bool] | None = None
    ) -> dict[int, list[float] | ValueError]:
        """Return the vector of each text, by its place; or why there is none.

        Raises:
            NotFoundError: the endpoint has no such model.
            UnavailableError: it does not answer at all, or refuses the key.
            Stopped: `stopping` said so.
        """
        bodies = ((place, {"model": self.name, "input": [text]}) for place, text in texts.items())

        def made(_: int, found: Mapping[int, list[float]] | str | Unanswered) -> list[float] | ValueError:
            if isinstance(found, str | Unanswered):
                return ValueError(str(found))
            return found[0] if 0 in found else ValueError(f"{self.called} sent no vector")

        return self._gathered(self._answers(EMBEDDING, bodies, stopping), made, None)

    def _gathered(
        self,
        answers: Iterator[tuple[int, T | Unanswered | ValueError]],
        make: Callable[[int, T | str | Unanswered], R],
        told: Callable[[int, R], None] | None,
    ) -> dict[int, R]:
        """Return what `make` makes of each answer, or of why there is none; by place.

        A failure is told once another request shows that it was of this one, not of the endpoint.
        """
        made: dict[int, R] = {}
        failed: dict[int, Unanswered] = {}
        answered = 0

        def keep(place: int, found: T | str | Unanswered) -> None:
            made[place] = make(place, found)
            if told:
                told(place, made[place])

        for place, found in answers:
            if isinstance(found, Unanswered):
                failed[place] = found
                if len(failed) >= max(MOST_IN_A_ROW, self.endpoint.at_once):
                    raise self._gone(found, len(made))
            elif isinstance(found, ValueError):
                keep(place, str(found))
            else:
                for earlier, why in failed.items():
                    keep(earlier, why)
                failed.clear()
                answered += 1
                keep(place, found)
        if failed and not answered:
            raise self._gone(next(iter(failed.values())), len(made))
        for place, why in failed.items():
            keep(place, why)
        return made

    def _gone(self, why: object, kept: int) -> UnavailableError:
        more = f"; {kept} rows are kept, and the same command goes on at the others" if kept else ""
        return UnavailableError(f"{self.called} does not answer: {why}{more}")

    def _answers(
        self,
        operation: Operation[T],
        bodies: Iterator[tuple[int, dict[str, Any]]],
        stopping: Callable[[], bool] | None,
    ) -> Iterator[tuple[int, T | Unanswered | ValueError]]:
        """Yield each place with what was answered or why nothing was, as it comes."""
        came: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        closed = threading.Event()
        room = asyncio.Semaphore(self.endpoint.at_once)
        every = self._ask(operation, bodies, came, room, closed)
        work = asyncio.run_coroutine_threadsafe(every, _loop())
        work.add_done_callback(lambda _: came.put(None))
        try:
            while True:
                if stopping and stopping():
                    raise Stopped("stopped while asking an endpoint")
                try:
                    item = came.get(timeout=0.2)
                except queue.Empty:
                    continue
                if item is None:
                    break
                yield item
                _loop().call_soon_threadsafe(room.release)
            _raise_first(work.exception())
        except CancelledError as error:  # of `work`: this process is ending
            raise Stopped("stopped while asking an endpoint") from error
        finally:
            if work.cancel():
                closed.wait(CLOSING_SECONDS)

    async def _ask(
        self,
        operation: Operation[Any],
        bodies: Iterator[tuple[int, dict[str, Any]]],
        came: queue.SimpleQueue[Any],
        room: asyncio.Semaphore,
        closed: threading.Event,
    ) -> None:
        """Ask everything; `room` is given back for each answer that was taken: none piles up that nobody keeps."""
        channel = _channel(self.endpoint)

        async def worker(client: aiohttp.ClientSession) -> None:
            for place, body in bodies:
                await room.acquire()
                try:
                    came.put((place, await channel.ask(client, operation, body, self.called)))
                except (ValueError, Unanswered) as error:
                    came.put((place, error))

        try:
            async with channel.open() as client, asyncio.TaskGroup() as group:
                for _ in range(self.endpoint.at_once):
                    group.create_task(worker(client))
        finally:
            closed.set()


def _raise_first(error: BaseException | None) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, LlsflowError):
        raise error
    if error is not None:
        raise RuntimeError("asking an endpoint failed") from error


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop in which this process asks endpoints: all callers share its connections and limits."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="endpoints", daemon=True).start()
    return loop


_channels: dict[str, Channel] = {}
_guard = threading.Lock()


def _channel(endpoint: Endpoint) -> Channel:
    """Return this process's way to an endpoint."""
    with _guard:
        key = endpoint.model_dump_json(exclude={"model"})
        if key not in _channels:
            _channels[key] = Channel(endpoint)
        return _channels[key]

"""Models behind OpenAI-compatible endpoints: the embedded engine, vLLM, Ollama, or a hosted service."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from llsflow.data.conversation import Conversation
from llsflow.errors import ConfigError, LlsflowError, Mistake, Stopped, UnavailableError
from llsflow.models.endpoint import Channel, Unanswered
from llsflow.models.generation import Generation
from llsflow.models.protocol import request_body
from llsflow.schema.inference import ResponseFormat
from llsflow.schema.models import Endpoint, ModelConfig
from llsflow.schema.sampling import SamplingParams

if TYPE_CHECKING:
    import httpx

MOST_IN_A_ROW = 10
"""Requests that fail one after another before the endpoint itself is taken to be gone; at least as many as at once."""

CLOSING_SECONDS = 5.0
"""Longest wait for connections to be closed when no more answers are wanted."""

Told = Callable[[int, Generation], None]


@dataclass(frozen=True)
class RemoteModel:
    """A model that answers over HTTP, many conversations at once."""

    endpoint: Endpoint
    name: str
    """Its id there."""
    called: str
    """What messages call the endpoint."""

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
        return RemoteModel(endpoint, model_id, "the inference engine")

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
        made: dict[int, Generation] = {}
        failed: dict[int, Generation] = {}

        def keep(place: int, generation: Generation) -> None:
            made[place] = generation
            if on_generation:
                on_generation(place, generation)

        for place, found in self._answers(asked, sampling, seed, response_format, stopping):
            prompt = json.dumps(asked[place], ensure_ascii=False)
            if isinstance(found, Unanswered):
                failed[place] = Generation("", 0, "stop", prompt, str(found))
                if len(failed) >= max(MOST_IN_A_ROW, self.endpoint.at_once):
                    raise self._gone(found, len(made))
            elif isinstance(found, ValueError):
                keep(place, Generation("", 0, "stop", prompt, str(found)))
            else:
                for earlier, generation in failed.items():
                    keep(earlier, generation)
                failed.clear()
                keep(place, Generation(found.text, found.tokens, found.finish, prompt))
        if failed and not any(generation.error is None for generation in made.values()):
            raise self._gone(next(iter(failed.values())).error, len(made))
        for place, generation in failed.items():
            keep(place, generation)
        return made

    def _gone(self, why: object, kept: int) -> UnavailableError:
        more = f"; {kept} rows are kept, and the same command goes on at the others" if kept else ""
        return UnavailableError(f"{self.called} does not answer: {why}{more}")

    def _answers(
        self,
        asked: Mapping[int, Conversation],
        sampling: SamplingParams,
        seed: int | None,
        response_format: ResponseFormat | None,
        stopping: Callable[[], bool] | None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield each place with its Reply, Unanswered or ValueError, as it comes."""
        came: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        bodies = (
            (place, request_body(self.name, said, sampling, None if seed is None else seed + place, response_format))
            for place, said in asked.items()
        )
        closed = threading.Event()
        room = asyncio.Semaphore(self.endpoint.at_once)
        every = self._ask(bodies, came, room, closed)
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
        bodies: Iterator[tuple[int, dict[str, Any]]],
        came: queue.SimpleQueue[Any],
        room: asyncio.Semaphore,
        closed: threading.Event,
    ) -> None:
        """Ask everything; `room` is given back for each answer that was taken: none piles up that nobody keeps."""
        channel = _channel(self.endpoint)

        async def worker(client: httpx.AsyncClient) -> None:
            for place, body in bodies:
                await room.acquire()
                try:
                    came.put((place, await channel.ask(client, body, self.called)))
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

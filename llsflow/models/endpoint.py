"""Requests to one OpenAI-compatible endpoint: its key, its limit, and tries again where another may help."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llsflow.data.addresses import is_here
from llsflow.errors import NotFoundError, UnavailableError
from llsflow.models.generation import Finish
from llsflow.models.protocol import NOT_A_NUMBER, OUT_OF_MEMORY
from llsflow.schema.models import Endpoint

if TYPE_CHECKING:
    import httpx

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""Between tries: doubled each time, and shortened at random so that those who failed together come back apart."""

IDLE_SECONDS = 4.0
"""How long a connection waits for the next request: less than uvicorn's 5, so none is sent into its end."""

ENDING_SECONDS = 0.2
"""Longest wait for a stream's end after its `[DONE]`: only one that was read to its end gives its connection on."""

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = frozenset({400, 413, 422})


pause = asyncio.sleep


class Unanswered(Exception):
    """A request that no try brought an answer to, and why."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered."""

    text: str
    tokens: int
    finish: Finish


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Operation(Generic[T_co]):
    """One of the things that an endpoint can be asked for."""

    path: str
    what: str
    """What it answers with."""
    read: Callable[[Any], T_co]
    """Its JSON -> the answer; ValueError, KeyError, IndexError, TypeError or AttributeError: it is none."""


def _completion(told: Any) -> Reply:
    choice = told["choices"][0]
    tokens = (told.get("usage") or {}).get("completion_tokens") or 0
    finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
    return Reply(str(choice["message"]["content"] or ""), int(tokens), finish)


def _scores(told: Any) -> dict[int, float]:
    return {int(one["index"]): float(one["relevance_score"]) for one in told["results"]}


def _vectors(told: Any) -> dict[int, list[float]]:
    return {int(one["index"]): [float(number) for number in one["embedding"]] for one in told["data"]}


COMPLETION = Operation("/chat/completions", "completion", _completion)
RERANK = Operation("/rerank", "ranking", _scores)
"""Scores by the item's place. Source: the reranking that Cohere began and Jina and vLLM serve too."""


EMBEDDING = Operation("/embeddings", "embedding", _vectors)
"""Vectors by the text's place."""


@dataclass(frozen=True)
class _Nothing:
    """A try that brought no answer."""

    why: str
    wait: float | None = None
    """Seconds after which the endpoint asks for the next; None: it does not say."""


class Channel:
    """This process's way to an endpoint, which holds to its limit whoever asks; used in one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._free = asyncio.Semaphore(endpoint.at_once)

    def open(self) -> httpx.AsyncClient:
        """Return connections to the endpoint, to be closed by the caller."""
        import httpx

        key = os.environ.get(self.endpoint.api_key_env) if self.endpoint.api_key_env else None
        return httpx.AsyncClient(
            base_url=self.endpoint.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            timeout=self.endpoint.timeout_seconds,
            limits=httpx.Limits(max_connections=self.endpoint.at_once, keepalive_expiry=IDLE_SECONDS),
            trust_env=not is_here(httpx.URL(self.endpoint.base_url).host),
        )

    async def ask(self, client: httpx.AsyncClient, operation: Operation[T], body: Mapping[str, Any], called: str) -> T:
        """Return the answer to a request.

        Args:
            client: connections, as `open` returns them.
            operation: what is asked for.
            body: of the request.
            called: what messages call the endpoint.

        Raises:
            ValueError: the endpoint refuses this request, and why.
            Unanswered: no try brought an answer.
            NotFoundError: it has no such model, or nothing at this address.
            UnavailableError: it refuses the key.
        """
        why, wait = "", 0.0
        for number in range(self.endpoint.retries + 1):
            if number:
                await pause(wait)
            async with self._free:
                found = await self._try(client, operation, body, called)
            if not isinstance(found, _Nothing):
                return found
            why, wait = found.why, self._wait(found, number)
        raise Unanswered(self._tried(why))

    def _wait(self, found: _Nothing, number: int) -> float:
        """Return after how many seconds the try after this one is made."""
        longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**number)
        return found.wait if found.wait is not None else longest * random.uniform(0.5, 1)  # noqa: S311

    def _tried(self, why: str) -> str:
        return f"{why} ({self.endpoint.retries + 1} tries)" if self.endpoint.retries else why

    @contextlib.asynccontextmanager
    async def stream(
        self, client: httpx.AsyncClient, body: Mapping[str, Any], called: str
    ) -> AsyncGenerator[AsyncIterator[Any]]:
        """Give the events of a streamed chat completion, each as its JSON; tried again until the first may come.

        Raises:
            ValueError, Unanswered, NotFoundError, UnavailableError: as `ask`.
        """
        why, wait = "", 0.0
        async with self._free:
            for number in range(self.endpoint.retries + 1):
                if number:
                    await pause(wait)
                found, response = await self._open_stream(client, body, called)
                if response is not None:
                    try:
                        yield _events(response)
                    finally:
                        await response.aclose()
                    return
                why, wait = found.why, self._wait(found, number)
        raise Unanswered(self._tried(why))

    async def _open_stream(
        self, client: httpx.AsyncClient, body: Mapping[str, Any], called: str
    ) -> tuple[_Nothing, httpx.Response | None]:
        import httpx

        request = client.build_request("POST", COMPLETION.path, json={**body, "stream": True})
        try:
            response = await client.send(request, stream=True)
        except httpx.TimeoutException:
            return _Nothing(f"no answer within {self.endpoint.timeout_seconds:g} s"), None
        except httpx.HTTPError as error:
            return _Nothing(str(error) or type(error).__name__), None
        if response.status_code == httpx.codes.OK:
            return _Nothing(""), response
        try:
            await response.aread()
            return self._refusal(response, called), None
        finally:
            await response.aclose()

    async def _try(
        self, client: httpx.AsyncClient, operation: Operation[T], body: Mapping[str, Any], called: str
    ) -> T | _Nothing:
        """Return the answer; or why there is none that another try may bring."""
        import httpx

        try:
            response = await client.post(operation.path, json=body)
        except httpx.TimeoutException:
            return _Nothing(f"no answer within {self.endpoint.timeout_seconds:g} s")
        except httpx.HTTPError as error:
            return _Nothing(str(error) or type(error).__name__)
        if response.status_code == httpx.codes.OK:
            try:
                return operation.read(response.json())
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                return _Nothing(f"it answered with something that is no {operation.what}")
        return self._refusal(response, called)

    def _refusal(self, response: httpx.Response, called: str) -> _Nothing:
        """Return why an answer with another status than 200 may come at another try.

        Raises:
            ValueError, NotFoundError, UnavailableError: it will not, and why.
        """
        message, code = _message(response)
        if response.status_code in (401, 403):
            variable = self.endpoint.api_key_env
            key = f"the key of {variable}" if variable else "a request without a key: set api_key_env"
            raise UnavailableError(f"{called} refuses {key} (HTTP {response.status_code})")
        if response.status_code == 404:
            raise NotFoundError(f"{called}: {message}")
        if response.status_code in REFUSED or code in (OUT_OF_MEMORY, NOT_A_NUMBER):
            raise ValueError(message)
        if response.status_code in AGAIN:
            return _Nothing(message, _retry_after(response))
        raise ValueError(f"HTTP {response.status_code}: {message}")


async def _events(response: httpx.Response) -> AsyncIterator[Any]:
    """Yield the JSON of each server-sent event, up to the protocol's `[DONE]`."""
    # by hand: httpx's lines go through two more iterators, and every token of every answer comes through here
    parts, rest = response.aiter_bytes(), b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            value = line[len(b"data:") :].strip()
            if value == b"[DONE]":
                await _end(parts)
                return
            yield json.loads(value)


async def _end(parts: AsyncIterator[bytes]) -> None:
    """Read what is left of a stream, as long as it ends soon."""
    import httpx

    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(ENDING_SECONDS):
            async for _ in parts:
                pass


def _message(response: httpx.Response) -> tuple[str, str | None]:
    """Return what an error says, and its code."""
    try:
        error: Any = response.json()["error"]
        if isinstance(error, str):  # Ollama
            return error, None
        return str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {response.status_code}", None


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return min(LONGEST_WAIT_SECONDS, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):  # a date is rare here: the usual pause does
        return None

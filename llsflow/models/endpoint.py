"""Requests to one OpenAI-compatible endpoint: its key, its limit, and tries again where another may help."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from llsflow.data.addresses import is_here
from llsflow.errors import NotFoundError, UnavailableError
from llsflow.models.completion import BrokenOffError, Said
from llsflow.models.events import DONE, EventReader, Failure, failure_of, is_last
from llsflow.models.generation import Finish
from llsflow.models.protocol import NOT_A_NUMBER, OUT_OF_MEMORY
from llsflow.schema.models import Endpoint

if TYPE_CHECKING:
    import ssl

    import aiohttp

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
"""Between tries: doubled each time, and shortened at random so that those who failed together come back apart."""

IDLE_SECONDS = 4.0
"""How long a connection waits for the next request: less than uvicorn's 5, so none is sent into its end."""

ENDING_SECONDS = 0.2
"""Longest wait for a stream's end after its `[DONE]`: only one that was read to its end gives its connection on."""

AGAIN = frozenset({408, 409, 424, 425, 429, 498, *range(500, 600)})
"""424 as Bedrock and 498 as Groq have it, for a model that is not ready or has no room."""
KEY = frozenset({401, 402, 403})
"""The key is not known, has no credit or no right: no other row will be answered."""
REFUSED = frozenset({400, 413, 422})


_JSON = json.JSONEncoder(separators=(",", ":"))

pause = asyncio.sleep


class Unanswered(Exception):
    """A request that no try brought an answer to, and why."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered."""

    text: str
    tokens: int
    finish: Finish
    reasoning: str = ""


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Operation(Generic[T_co]):
    """One of the things that an endpoint can be asked for."""

    path: str
    what: str
    """What it answers with."""
    key: str
    """Of its JSON: what holds the answer."""
    read: Callable[[Any], T_co]
    """Its JSON, of events a list of theirs -> the answer; UnavailableError, ValueError, KeyError, IndexError, TypeError
    or AttributeError: it is none."""


def _completion(told: Any) -> Reply:
    said = Said()
    if isinstance(told, list):
        for event in told:
            said.take(event)
    else:
        said.take(told)
    said.end()
    return Reply(said.text, said.tokens.get("completion_tokens", 0), said.ending, said.reasoning)


def _scores(told: Any) -> dict[int, float]:
    return {int(one["index"]): float(one["relevance_score"]) for one in told["results"]}


def _vectors(told: Any) -> dict[int, list[float]]:
    return {int(one["index"]): [float(number) for number in one["embedding"]] for one in told["data"]}


COMPLETION = Operation("/chat/completions", "completion", "choices", _completion)
RERANK = Operation("/rerank", "ranking", "results", _scores)
"""Scores by the item's place. Source: the reranking that Cohere began and Jina and vLLM serve too."""


EMBEDDING = Operation("/embeddings", "embedding", "data", _vectors)
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
        self._has_answered = False

    def open(self) -> aiohttp.ClientSession:
        """Return connections to the endpoint, to be closed by the caller; to be called in the event loop."""
        # not httpx, which takes four times as long for a request: every token of every answer comes through here
        import aiohttp

        key = os.environ.get(self.endpoint.api_key_env) if self.endpoint.api_key_env else None
        return aiohttp.ClientSession(
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout_seconds),
            connector=aiohttp.TCPConnector(
                limit=self.endpoint.at_once, keepalive_timeout=IDLE_SECONDS, ssl=self._authorities()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not is_here(urlsplit(self.endpoint.base_url).hostname or ""),
        )

    def _authorities(self) -> ssl.SSLContext | bool:
        """Return whose certificates are trusted: SSL_CERT_FILE's or SSL_CERT_DIR's, else certifi's, as in httpx."""
        if not self.endpoint.base_url.startswith("https:"):
            return True
        import httpx

        return httpx.create_ssl_context()

    async def ask(
        self, client: aiohttp.ClientSession, operation: Operation[T], body: Mapping[str, Any], called: str
    ) -> T:
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
        return found.wait if found.wait is not None else _seconds_before_try(number)

    def _tried(self, why: str) -> str:
        return f"{why} ({self.endpoint.retries + 1} tries)" if self.endpoint.retries else why

    @contextlib.asynccontextmanager
    async def stream(
        self, client: aiohttp.ClientSession, body: Mapping[str, Any], called: str
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
                found = await self._open_stream(client, body, called)
                if isinstance(found, _Stream):
                    try:
                        yield found.events
                    finally:
                        found.response.close()
                    return
                why, wait = found.why, self._wait(found, number)
        raise Unanswered(self._tried(why))

    async def _open_stream(
        self, client: aiohttp.ClientSession, body: Mapping[str, Any], called: str
    ) -> _Stream | _Nothing:
        """Return the events of an answer once the first bytes of it have come, or the whole answer as one event."""
        import aiohttp

        seconds = self.endpoint.timeout_seconds
        parts = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        try:
            response = await self._post(client, COMPLETION.path, {**body, "stream": True}, parts)
            if response.status != HTTPStatus.OK:
                async with response:
                    return self._refusal(response, await response.read(), called)
        except (TimeoutError, aiohttp.ClientError) as error:
            return self._failed(error)
        try:
            begin = await _begin(response)
            self._has_answered = True
            if not _is_json(begin):
                return _Stream(response, _events(response, begin, called))
            async with response:
                found = self._read(response, begin + await response.read(), COMPLETION, called)
        except (TimeoutError, aiohttp.ClientError) as error:
            response.close()
            return _Nothing(f"it broke off in the middle of its answer: {why_failed(error, None)}")
        return found if isinstance(found, _Nothing) else _Stream(response, _one(found))

    async def _try(
        self, client: aiohttp.ClientSession, operation: Operation[T], body: Mapping[str, Any], called: str
    ) -> T | _Nothing:
        """Return the answer; or why there is none that another try may bring."""
        import aiohttp

        try:
            async with await self._post(client, operation.path, body) as response:
                content = await response.read()
        except (TimeoutError, aiohttp.ClientError) as error:
            return self._failed(error)
        if response.status != HTTPStatus.OK:
            return self._refusal(response, content, called)
        found = self._read(response, content, operation, called)
        if isinstance(found, _Nothing):
            return found
        self._has_answered = True
        try:
            return operation.read(found)
        except UnavailableError as error:
            return _Nothing(str(error))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return _Nothing(f"it answered with something that is no {operation.what}")

    def _read(
        self, response: aiohttp.ClientResponse, content: bytes, operation: Operation[Any], called: str
    ) -> Any | _Nothing:
        """Return the JSON of an answer, of events a list of theirs; or why another try may bring it.

        Raises:
            ValueError, NotFoundError, UnavailableError: it tells of a failure that another try will not mend.
        """
        try:
            if "event-stream" in response.headers.get("content-type", "") and not _is_json(content):
                return _all_events(content)
            told = json.loads(content)
        except BrokenOffError as error:
            return _Nothing(str(error))
        except (ValueError, RecursionError):
            told = None
        failure = failure_of(told)
        if failure is None and isinstance(told, dict) and told.get(operation.key) is not None:
            return told
        if failure is None:
            return _Nothing(f"it answered with something that is no {operation.what}")
        if failure.status is None:
            return _Nothing(failure.message, _retry_after(response))
        return self._judged(failure.status, failure, response, called)

    async def _post(
        self,
        client: aiohttp.ClientSession,
        path: str,
        body: Mapping[str, Any],
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        url, content = self.endpoint.base_url + path, _JSON.encode(body).encode()
        # redirects are not followed: they would take the key elsewhere
        return await client.post(url, data=content, allow_redirects=False, timeout=timeout or client.timeout)

    def _failed(self, error: Exception) -> _Nothing:
        return _Nothing(why_failed(error, self.endpoint.timeout_seconds))

    def _refusal(self, response: aiohttp.ClientResponse, content: bytes, called: str) -> _Nothing:
        """Return why an answer with another status than 200 may come at another try.

        Raises:
            ValueError, NotFoundError, UnavailableError: it will not, and why.
        """
        return self._judged(response.status, _failure(response.status, content), response, called)

    def _judged(self, status: int, failure: Failure, response: aiohttp.ClientResponse, called: str) -> _Nothing:
        message = failure.message
        # a key that was good is good still: what is refused is what this request says, as by a moderation
        if status in KEY and not (status == HTTPStatus.FORBIDDEN and (self._has_answered or _is_moderated(message))):
            variable = self.endpoint.api_key_env
            key = f"the key of {variable}" if variable else "a request without a key: set api_key_env"
            said = "" if message == f"HTTP {status}" else f": {message}"
            raise UnavailableError(f"{called} refuses {key} (HTTP {status}){said}")
        if status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(f"{called}: {message}")
        if status in REFUSED or failure.code in (OUT_OF_MEMORY, NOT_A_NUMBER):
            raise ValueError(message)
        if status in AGAIN:
            return _Nothing(message, _retry_after(response))
        raise ValueError(f"HTTP {status}: {message}")


def _is_moderated(message: str) -> bool:
    return any(word in message.lower() for word in ("moderat", "flagged"))


def _seconds_before_try(number: int) -> float:
    wait: float = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**number)
    return wait * random.uniform(0.5, 1)  # noqa: S311 - it keeps requests apart


async def wait_before_try(number: int) -> None:
    """Wait as long as it is waited after so many tries that failed."""
    await pause(_seconds_before_try(number))


@dataclass(frozen=True)
class _Stream:
    """An answer that comes in events."""

    response: aiohttp.ClientResponse
    events: AsyncIterator[Any]


async def _begin(response: aiohttp.ClientResponse) -> bytes:
    """Return the first bytes of an answer that are no white space, and what came with them."""
    begin = b""
    while not begin.strip() and (part := await response.content.readany()):
        begin += part
    return begin


def _is_json(content: bytes) -> bool:
    """Return whether an answer is a JSON text, and no events: one of these never begins like this."""
    return content.lstrip()[:1] in (b"{", b"[")


async def _one(event: Any) -> AsyncIterator[Any]:
    yield event


NO_END = "its stream ended without finish_reason and [DONE]"


async def _events(response: aiohttp.ClientResponse, begin: bytes, called: str) -> AsyncIterator[Any]:
    """Yield the JSON of each server-sent event, up to the protocol's `[DONE]`.

    Raises:
        BrokenOffError: the answer breaks off, or ends before it says that it is whole.
        UnavailableError: it is none of the protocol's.
    """
    import aiohttp

    reader, parts, whole = EventReader(), response.content.iter_any(), False
    try:
        async for part in _joined(begin, parts):
            for event in reader.feed(part) if part is not None else reader.end():
                if event is DONE:
                    await _end(parts)
                    return
                whole = whole or is_last(event)
                yield event
    except (TimeoutError, aiohttp.ClientError) as error:
        if not whole:
            raise _broken_off(called, why_failed(error, None)) from None
    except (ValueError, RecursionError):
        raise UnavailableError(f"{called} streams something that is no JSON") from None
    if not whole:
        raise _broken_off(called, NO_END)


def _broken_off(called: str, why: str) -> BrokenOffError:
    return BrokenOffError(f"{called} broke off in the middle of its answer: {why}")


async def _joined(begin: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Yield the first bytes, those behind them, and None at the end."""
    yield begin
    async for part in parts:
        yield part
    yield None


def _all_events(content: bytes) -> list[Any]:
    """Return the events of an answer that has come whole.

    Raises:
        BrokenOffError: it ends before it says that it is whole.
        ValueError: one is no JSON.
    """
    reader = EventReader()
    events = [*reader.feed(content), *reader.end()]
    if not any(event is DONE or is_last(event) for event in events):
        raise _broken_off("it", NO_END)
    return [event for event in events if event is not DONE]


async def _end(parts: AsyncIterator[bytes]) -> None:
    """Read what is left of a stream, as long as it ends soon."""
    import aiohttp

    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ENDING_SECONDS):
            async for _ in parts:
                pass


def why_failed(error: Exception, seconds: float | None) -> str:
    """Return why a request brought nothing, in words; `seconds` is the time that it had."""
    import aiohttp

    if isinstance(error, TimeoutError):
        return "nothing came in time" if seconds is None else f"no answer within {seconds:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host {error.host} is not known"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return f"no connection to {error.host}:{error.port} ({os.strerror(error.errno or 0)})"
    return str(error) or type(error).__name__


def _failure(status: int, content: bytes) -> Failure:
    """Return what an answer with another status than 200 tells."""
    try:
        told = failure_of(json.loads(content))
    except (ValueError, RecursionError):
        told = None
    return told or Failure(f"HTTP {status}")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    try:
        return min(LONGEST_WAIT_SECONDS, max(0.0, float(response.headers["retry-after"])))
    except (KeyError, ValueError):  # a date is rare here: the usual pause does
        return None

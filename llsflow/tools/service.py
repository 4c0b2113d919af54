"""A service on the network behind a tool: asked within bounds, and its key told to nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llsflow.data.addresses import is_here
from llsflow.errors import UnavailableError
from llsflow.tools.base import ToolError

if TYPE_CHECKING:
    import httpx

MOST_MESSAGE_CHARACTERS = 500
"""Of what a service says of a request that it refuses."""


@dataclass(frozen=True)
class Answer:
    """What a service said."""

    status: int
    content: bytes

    @property
    def text(self) -> str:
        """Return it as a text."""
        return self.content.decode("utf-8", "replace")

    def json(self, called: str) -> Any:
        """Return it as JSON.

        Raises:
            ToolError: it is none.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise ToolError(f"{called} answers with something that is no JSON") from None


class Service:
    """The way to one service; used in one event loop."""

    def __init__(self, called: str, base_url: str, api_key_env: str | None, *, most_bytes: int) -> None:
        self.called = called
        """In messages."""
        self._base_url = base_url
        self._api_key_env = api_key_env
        self._most_bytes = most_bytes
        self._client: httpx.AsyncClient | None = None

    def key(self) -> str:
        """Return the key, or nothing where none is needed.

        Raises:
            UnavailableError: it is in no environment variable.
        """
        if self._api_key_env is None:
            return ""
        key = os.environ.get(self._api_key_env, "").strip()
        if not key:
            raise UnavailableError(f"{self.called}: {self._api_key_env} is not set: export {self._api_key_env}=…")
        if not (key.isascii() and key.isprintable()):
            raise UnavailableError(f"{self.called}: {self._api_key_env} holds characters that no key has")
        return key

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        takes: tuple[int, ...] = (200,),
    ) -> Answer:
        """Return the answer to a request; redirects are not followed.

        Args:
            method: of HTTP.
            path: below the service's address.
            headers: beside the usual ones.
            params: behind the path; they are logged where requests are, so no key goes there.
            body: sent as JSON.
            takes: statuses of an answer; any other is an error.

        Raises:
            ToolError: there is no such answer, and why, without the key and without the address.
        """
        import httpx

        try:
            async with self._opened().stream(method, path, headers=headers, params=params, json=body) as response:
                content = bytearray()
                async for piece in response.aiter_bytes():
                    content += piece
                    if len(content) > self._most_bytes:
                        raise ToolError(f"{self.called} answers with more than {self._most_bytes:,} bytes")
        except httpx.TimeoutException:
            raise ToolError(f"{self.called} does not answer in time: try again later") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # their texts may hold the address
            raise ToolError(f"{self.called} cannot be reached ({type(error).__name__})") from None
        answer = Answer(response.status_code, bytes(content))
        if answer.status not in takes:
            raise self._refusal(answer)
        return answer

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self._base_url,
                # nothing is unpacked, so what was counted is all there is
                headers={"user-agent": "llsflow", "accept-encoding": "identity"},
                timeout=None,  # noqa: S113 - who calls the tool ends it
                trust_env=not is_here(httpx.URL(self._base_url).host),
            )
        return self._client

    def _refusal(self, answer: Answer) -> ToolError:
        """Return why an answer is none."""
        if answer.status in (401, 403):
            key = f"the key of {self._api_key_env}" if self._api_key_env else "a request without a key: set api_key_env"
            return ToolError(f"{self.called} refuses {key} (HTTP {answer.status})")
        if answer.status == 429:
            return ToolError(f"{self.called} takes no more requests for now (HTTP 429): try again later")
        if 300 <= answer.status < 400:
            return ToolError(f"{self.called} redirects (HTTP {answer.status}), which is not followed: mend base_url")
        said = _message(answer)
        if key := self.key():
            said = said.replace(key, "…")
        return ToolError(f"{self.called} answers with HTTP {answer.status}{said and ': '}{said}")


def _message(answer: Answer) -> str:
    """Return what an error says, in the forms of OpenAI (`message`) and of Brave (`detail`)."""
    try:
        error = json.loads(answer.content)["error"]
        message = error.get("message") or error.get("detail")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return " ".join(message.split())[:MOST_MESSAGE_CHARACTERS] if isinstance(message, str) else ""

"""The shield `moderation`: any server with OpenAI's moderations endpoint.

Source: https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, FiniteFloat, StrictBool, ValidationError

from llsflow.data.addresses import is_here
from llsflow.errors import UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.schema.base import Record
from llsflow.schema.shields import Moderation, ShieldConfig
from llsflow.shields.base import Ask, Said

if TYPE_CHECKING:
    import httpx


class _Result(Record):
    """What was found in one text."""

    flagged: StrictBool
    categories: dict[str, StrictBool | None]
    """null: the model that was asked knows it not."""
    category_scores: dict[str, FiniteFloat | None]


class _Answer(Record):
    results: Annotated[list[_Result], Field(min_length=1)]


class ModerationShield:
    """Asks a moderations endpoint about the last message."""

    def __init__(self, provider: Moderation, config: ShieldConfig, ask: Ask) -> None:
        self._provider = provider
        self._config = config
        self._url = f"{provider.base_url}/moderations"
        self._client: httpx.AsyncClient | None = None

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what is flagged in the last message, with its scores; there is nothing to flag in an empty one.

        Raises:
            UnavailableError: the key is missing or refused, the endpoint does not answer, or not by the protocol.
        """
        text = said[-1].text
        if not text.strip():
            return None
        results = (await self._answer(text)).results
        flagged = {name: result.category_scores.get(name) for result in results for name in self._flagged(result)}
        # a server may flag a text without saying why
        if not flagged and (self._provider.categories is not None or not any(result.flagged for result in results)):
            return None
        return SafetyViolation(
            violation_level=self._config.violation_level,
            user_message=self._config.user_message,
            metadata={"categories": flagged},
        )

    async def close(self) -> None:
        """Close the connections; a later `look` opens new ones."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _answer(self, text: str) -> _Answer:
        import httpx

        body = {"input": text} | ({"model": self._provider.model} if self._provider.model else {})
        headers = self._headers()
        try:
            response = await self._connections().post(self._url, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"{self._url}: {str(error) or type(error).__name__}") from error
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(self._refusal(response.status_code))
        try:
            return _Answer.model_validate_json(response.content, extra="ignore")
        except ValidationError as error:
            raise UnavailableError(f"{self._url} answered with something that is no moderation") from error

    def _connections(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=None,  # noqa: S113 - who calls keeps the shield's time limit
                follow_redirects=False,
                # an address of this machine is never reached through a proxy
                trust_env=not is_here(httpx.URL(self._url).host),
            )
        return self._client

    def _headers(self) -> dict[str, str]:
        """Return what a request says of its sender.

        Raises:
            UnavailableError: the key's variable is not set, or what it holds is no key.
        """
        variable = self._provider.api_key_env
        if not variable:
            return {}
        key = os.environ.get(variable, "").strip()
        if not key:
            message = f"the environment variable {variable} is not set: it is to hold the key of {self._url}"
            raise UnavailableError(message)
        if not (key.isascii() and key.isprintable()):  # the client would refuse it with a message that repeats it
            raise UnavailableError(f"the environment variable {variable} holds signs that are in no key: set it anew")
        return {"Authorization": f"Bearer {key}"}

    def _refusal(self, status: int) -> str:
        """Return why another status than 200 came; never in the words of the server, which may repeat the key."""
        if status in (401, 403):
            variable = self._provider.api_key_env
            key = f"the key of {variable}" if variable else "a request without a key: set api_key_env"
            return f"{self._url} refuses {key} (HTTP {status})"
        return f"{self._url} answered with HTTP {status}, allowed: 200; look at base_url and model"

    def _flagged(self, result: _Result) -> list[str]:
        """Return the categories that count and are flagged.

        Raises:
            UnavailableError: the server knows not one of those that are to count: it would never be found.
        """
        counted = self._provider.categories
        if counted is None:
            return [name for name, flagged in result.categories.items() if flagged]
        unknown = [name for name in counted if name not in result.categories]
        if unknown:
            found, known = ", ".join(unknown), ", ".join(sorted(result.categories))
            raise UnavailableError(f"{self._url} has no such categories: found {found}, allowed: {known}")
        return [name for name in counted if result.categories[name]]

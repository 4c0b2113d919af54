"""Requests to one address as tools: operations of an OpenAPI document, or functions that the group writes out."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llsflow.data.addresses import is_here
from llsflow.errors import ConfigError, Mistake, UnavailableError
from llsflow.schema.inference import ToolDef
from llsflow.schema.toolgroups import HttpFunction, HttpFunctions
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult
from llsflow.tools.openapi import functions_of

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 1_000_000
"""Of an answer."""

_PLACE = re.compile(r"\{([^{}]+)\}")


class HttpTools(ToolProvider):
    """Asks one server. What the model says can neither change the server nor leave the place of its argument."""

    def __init__(self, config: HttpFunctions) -> None:
        self.config = config
        self._functions: dict[str, HttpFunction] | None = None
        self._client: httpx.AsyncClient | None = None

    async def tools(self) -> Sequence[ToolDef]:
        """Return the operations and functions."""
        if self.config.api_key_env and not os.environ.get(self.config.api_key_env):
            raise UnavailableError(f"the environment variable {self.config.api_key_env} is not set: it holds the key")
        if self._functions is None:
            self._functions = await asyncio.to_thread(self._load)
        return [
            ToolDef(name=one.name, description=one.description or None, input_schema=one.input_schema)
            for one in self._functions.values()
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Send a request; its answer is told as it is."""
        import httpx

        await self.tools()
        assert self._functions is not None  # noqa: S101 - tools() has loaded them
        function, left = self._functions[name], dict(arguments)
        path = _PLACE.sub(lambda place: quote(_word(left.pop(place[1], "")), safe=""), function.path)
        if any(part in (".", "..", "%2E%2E") for part in path.split("/")):
            raise ToolError("an argument of the path is '.' or '..': give a name")
        asked: dict[str, Any] = {}
        if function.method in ("GET", "DELETE"):
            path += _query(left, function.joined)
        else:
            asked["json"] = left
        try:
            async with self._opened().stream(function.method, path, **asked) as response:
                text = await _text(response)
        except httpx.HTTPError as error:
            raise ToolError(f"the server does not answer: {type(error).__name__}") from None
        if response.is_error or response.is_redirect:
            raise ToolError(f"HTTP {response.status_code}: {text[:2000]}")
        return ToolResult(text or f"HTTP {response.status_code}, without a body")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            key = os.environ.get(self.config.api_key_env) if self.config.api_key_env else None
            bearer = self.config.api_key_header.lower() == "authorization"
            headers = {self.config.api_key_header: f"Bearer {key}" if bearer else key} if key else None
            trust_env = not is_here(httpx.URL(self.config.base_url).host)
            # the group's timeout_seconds is over everything: who calls keeps to it
            timeout = httpx.Timeout(None)
            self._client = httpx.AsyncClient(
                base_url=self.config.base_url, headers=headers, trust_env=trust_env, timeout=timeout
            )
        return self._client

    def _load(self) -> dict[str, HttpFunction]:
        every = [*self.config.functions]
        if self.config.openapi is not None:
            every += functions_of(self.config.openapi, self.config.operations)
        names = [function.name for function in every]
        mistakes = [
            Mistake("provider", f"the function {name!r} is there twice: name each once")
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        for place, function in enumerate(self.config.functions):
            where = f"provider.functions.{place}"
            if not function.path.startswith("/"):
                mistakes.append(Mistake(f"{where}.path", f"found {function.path!r}: begin it with /"))
            unknown = sorted({*_PLACE.findall(function.path)} - {*function.input_schema.get("properties", ())})
            if unknown:
                message = f"has no {', '.join(unknown)}, which the path takes: describe it there"
                mistakes.append(Mistake(f"{where}.input_schema.properties", message))
        if mistakes:
            raise ConfigError(mistakes)
        return {function.name: function for function in every}


async def _text(response: httpx.Response) -> str:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise ToolError(f"the answer is over {MOST_BYTES:,} bytes: ask for less")
    return body.decode(response.charset_encoding or "utf-8", errors="replace")


def _query(arguments: Mapping[str, Any], joined: Mapping[str, str]) -> str:
    """Return arguments as the query of an address."""
    pairs: list[str] = []
    for key, value in arguments.items():
        if value is None:
            continue
        words = [quote(_word(one), safe="") for one in (value if isinstance(value, list) else [value])]
        joint = joined.get(key)
        # a comma stands as it is between items, and encoded within them
        values = words if joint is None else [("," if joint == "," else quote(joint)).join(words)]
        pairs += [f"{quote(key, safe='')}={one}" for one in values]
    return f"?{'&'.join(pairs)}" if pairs else ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

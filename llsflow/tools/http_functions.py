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
        path = _PLACE.sub(lambda place: _in_path(left.pop(place[1], "")), function.path)
        if any(part in (".", "..", "%2E%2E") for part in path.split("/")):
            raise ToolError("an argument of the path is '.' or '..': give a name")
        asked: dict[str, Any] = {}
        if function.in_body if function.in_body is not None else function.method not in ("GET", "DELETE"):
            asked["json"] = left
        else:
            path += _query(left, function)
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


def _in_path(value: Any) -> str:
    """Return an argument as a part of a path, lists and objects in the style `simple`."""
    return ",".join(_words(value)) if isinstance(value, list | Mapping) else quote(_word(value), safe="")


def _query(arguments: Mapping[str, Any], function: HttpFunction) -> str:
    """Return arguments as the query of an address.

    Source: spec.openapis.org/oas/v3.1.0, Style Examples.
    """
    pairs: list[tuple[str, str]] = []
    for key, value in arguments.items():
        if value is None:
            continue
        name, joint, style = quote(key, safe=""), function.joined.get(key), function.objects.get(key)
        if isinstance(value, Mapping) and style is not None and joint is None:
            names = [quote(one, safe="") for one in value]
            if style == "deepObject":
                names = [f"{name}[{one}]" for one in names]
            pairs += zip(names, (quote(_word(one), safe="") for one in value.values()), strict=True)
        elif joint is not None and isinstance(value, list | Mapping):
            # a comma stands as it is between items, and encoded within them
            pairs.append((name, ("," if joint == "," else quote(joint)).join(_words(value))))
        else:
            pairs += [(name, quote(_word(one), safe="")) for one in (value if isinstance(value, list) else [value])]
    return f"?{'&'.join(f'{name}={value}' for name, value in pairs)}" if pairs else ""


def _words(value: list[Any] | Mapping[str, Any]) -> list[str]:
    """Return the items of a list, or the names and values of an object in turns, each encoded."""
    items = value if isinstance(value, list) else [part for pair in value.items() for part in pair]
    return [quote(_word(item), safe="") for item in items]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

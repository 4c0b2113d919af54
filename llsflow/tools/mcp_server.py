"""Tools of a Model Context Protocol server, by the official SDK: a program here, or one behind HTTP.

Source: modelcontextprotocol.io/specification, tools.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from llsflow.data.addresses import is_here
from llsflow.errors import UnavailableError
from llsflow.schema.inference import ContentItem, ImageContentItem, TextContentItem, ToolDef
from llsflow.schema.toolgroups import McpServer
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult
from llsflow.tools.images import IMAGE_STARTS

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult

logger = logging.getLogger("llsflow.tools")

CONNECT_SECONDS = 20.0
"""Longest wait for a server to begin to speak."""
MOST_PAGES = 100
"""Of a server's list of tools."""


class McpTools(ToolProvider):
    """Speaks with a server as long as both live; one that has ended is started, or asked, again at the next turn."""

    def __init__(self, config: McpServer) -> None:
        self.config = config
        self._tools: Sequence[ToolDef] = ()
        self._client: Client | None = None
        self._connection: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._one = asyncio.Lock()

    async def tools(self) -> Sequence[ToolDef]:
        """Return the server's tools, as it listed them when the connection was made or told that they changed."""
        await self._connected()
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Have the server run a tool."""
        from mcp import MCPError

        try:
            client = await self._connected()
            told = await client.call_tool(name, dict(arguments))
        except UnavailableError as error:
            raise ToolError(str(error)) from None
        except MCPError as error:
            if self._client is not None and not await self._answers(self._client):
                await self._end()
            raise ToolError(f"the tool's server says: {error}") from None
        return _result(told)

    async def close(self) -> None:
        """End the program, or the session behind HTTP."""
        async with self._one:
            await self._end()

    async def _connected(self) -> Client:
        async with self._one:
            if self._connection is not None and self._connection.done():
                await self._end()
            if self._client is None:
                await self._connect()
            assert self._client is not None  # noqa: S101 - _connect raises otherwise
            return self._client

    async def _connect(self) -> None:
        """Start the task that holds the connection: it is opened and closed in the same task, as the SDK wants it."""
        self._ending = asyncio.Event()
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._connection = asyncio.create_task(self._hold(ready), name="mcp")
        try:
            self._client = await asyncio.wait_for(asyncio.shield(ready), CONNECT_SECONDS)
        except BaseException as error:
            self._connection.cancel()
            await asyncio.gather(self._connection, return_exceptions=True)
            self._connection = None
            if isinstance(error, asyncio.CancelledError):
                raise
            why = f"no answer within {CONNECT_SECONDS:g} s" if isinstance(error, TimeoutError) else _cause(error)
            raise UnavailableError(f"the MCP server {self._name} does not answer: {why}") from None

    async def _hold(self, ready: asyncio.Future[Client]) -> None:
        try:
            async with self._opened() as client:
                self._tools = await _listed(client)
                ready.set_result(client)
                await self._ending.wait()
        except Exception as error:
            if ready.done():
                logger.warning("the MCP server %s has ended: %s", self._name, _cause(error))
            else:
                ready.set_exception(error)
        finally:
            self._client = None

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Client]:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.types import ServerNotification, ToolListChangedNotification

        async def noticed(message: Any) -> None:
            if isinstance(message, ServerNotification | ToolListChangedNotification) and self._client:
                changed = getattr(message, "root", message)
                if isinstance(changed, ToolListChangedNotification):
                    self._tools = await _listed(self._client)

        if self.config.command is not None:
            program, *arguments = self.config.command
            if shutil.which(program) is None:
                raise UnavailableError(f"there is no program {program!r}")
            missing = [name for name in self.config.environment if name not in os.environ]
            if missing:
                raise UnavailableError(f"the environment variable {', '.join(missing)} is not set")
            given = {name: os.environ[name] for name in self.config.environment}
            with open(os.devnull, "w") as silent:  # noqa: PTH123 - what it says on stderr is not ours to show
                parameters = StdioServerParameters(command=program, args=arguments, env=given)
                async with Client(stdio_client(parameters, errlog=silent), message_handler=noticed) as client:
                    yield client
            return
        import httpx2

        assert self.config.url is not None  # noqa: S101 - the record has one of them
        key = os.environ.get(self.config.api_key_env) if self.config.api_key_env else None
        if self.config.api_key_env and not key:
            raise UnavailableError(f"the environment variable {self.config.api_key_env} is not set")
        headers = {"Authorization": f"Bearer {key}"} if key else None
        timeout = httpx2.Timeout(CONNECT_SECONDS, read=None)
        here = is_here(httpx2.URL(self.config.url).host)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=not here) as http,
            Client(streamable_http_client(self.config.url, http_client=http), message_handler=noticed) as client,
        ):
            yield client

    async def _answers(self, client: Client) -> bool:
        with suppress(Exception):
            await asyncio.wait_for(client.list_tools(cache_mode="bypass"), 5)
            return True
        return False

    async def _end(self) -> None:
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            self._ending.set()
            await asyncio.gather(connection, return_exceptions=True)

    @property
    def _name(self) -> str:
        return self.config.url or str(self.config.command[0] if self.config.command else "")


async def _listed(client: Client) -> list[ToolDef]:
    found: list[ToolDef] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [
            ToolDef(name=tool.name, description=tool.description, input_schema=tool.input_schema) for tool in page.tools
        ]
        cursor = page.next_cursor
        if not cursor:
            break
    return found


def _result(told: CallToolResult) -> ToolResult:
    items = [_item(item) for item in told.content]
    texts = [item.text for item in items if isinstance(item, TextContentItem)]
    if told.structured_content is not None and not _says(texts, told.structured_content):
        structured = json.dumps(told.structured_content, ensure_ascii=False)
        texts.append(structured)
        items.append(TextContentItem(text=structured))
    if told.is_error:
        shown = [f"[image, {_kind(item)}, not shown]" for item in items if isinstance(item, ImageContentItem)]
        raise ToolError("\n".join([*texts, *shown]) or "the tool failed and does not say why")
    images = any(isinstance(item, ImageContentItem) for item in items)
    return ToolResult(items if images else "\n".join(texts))


def _says(texts: Sequence[str], structured: Any) -> bool:
    """Return whether texts say what a structured result holds: servers send it as text too, or within `result`."""
    values = [_value(text) for text in texts]
    wanted = [structured]
    if isinstance(structured, dict) and structured.keys() == {"result"}:
        wanted.append(structured["result"])
    return any(one in values or one == values or (isinstance(one, str) and one in texts) for one in wanted)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _item(item: Any) -> ContentItem:
    """Return a part of a result: a text, an image, or a line that says what it is and where it lies."""
    from mcp.types import AudioContent, EmbeddedResource, ImageContent, ResourceLink, TextContent

    if isinstance(item, TextContent):
        return TextContentItem(text=item.text)
    if isinstance(item, ImageContent):
        return _image(item.data, item.mime_type)
    if isinstance(item, AudioContent):
        return TextContentItem(
            text=f"[audio, {item.mime_type}, {_bytes(item.data):,} bytes, which cannot be heard here]"
        )
    if isinstance(item, ResourceLink):
        more = [str(one) for one in (item.title, item.description, item.mime_type) if one]
        about = f" ({'; '.join(more)})" if more else ""
        return TextContentItem(text=f"[resource {item.name}: {item.uri}{about}]")
    if not isinstance(item, EmbeddedResource):
        return TextContentItem(text=f"[{item.type}, which cannot be shown here]")
    resource = item.resource
    if hasattr(resource, "text"):
        return TextContentItem(text=f"[resource {resource.uri}]\n{resource.text}")
    header = EmailMessage()
    header["content-type"] = resource.mime_type or "application/octet-stream"
    kind = header.get_content_type()
    if kind.startswith("image/"):
        return _image(resource.blob, kind)
    if _TEXTS.fullmatch(kind) and (text := _decoded(resource.blob, header.get_content_charset("utf-8"))) is not None:
        return TextContentItem(text=f"[resource {resource.uri}]\n{text}")
    return TextContentItem(text=f"[resource {resource.uri}: {kind}, {_bytes(resource.blob):,} bytes, not shown here]")


_TEXTS = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml|yaml|toml|x-yaml|x-ndjson|javascript|sql)")


def _decoded(blob: str, charset: str) -> str | None:
    """Return the text of a blob in base64; None: it is none."""
    try:
        return base64.b64decode(blob, validate=True).decode(charset, "replace")
    except (ValueError, LookupError):
        return None


def _kind(item: ImageContentItem) -> str:
    data, url = item.image.data, item.image.url
    if url is not None:
        return url.uri.removeprefix("data:").partition(";")[0]
    return next((kind for start, kind in IMAGE_STARTS.items() if (data or "").startswith(start)), "of another type")


def _image(data: str, mime_type: str) -> ContentItem:
    """Return an image that keeps the type that its server names; a line of one that no endpoint takes."""
    if mime_type not in IMAGE_STARTS.values() or not data.strip():
        return TextContentItem(text=f"[image, {mime_type}, {_bytes(data):,} bytes, which cannot be shown here]")
    if any(data.startswith(start) and kind == mime_type for start, kind in IMAGE_STARTS.items()):
        return ImageContentItem.model_validate({"image": {"data": data}})
    return ImageContentItem.model_validate({"image": {"url": {"uri": f"data:{mime_type};base64,{data}"}}})


def _bytes(data: str) -> int:
    """Return how many bytes a base64 text is."""
    return len(data) * 3 // 4 - data[-2:].count("=")


def _cause(error: BaseException) -> str:
    """Return what failed, out of the groups that the SDK's tasks raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__

"""brave_search: a web search by Brave.

Source: api-dashboard.search.brave.com/app/documentation/web-search (query, headers, responses).
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.inference import ToolDef
from llsflow.schema.toolgroups import BraveSearch
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult
from llsflow.tools.service import Service

MOST_BYTES = 4 << 20
MOST_QUERY_CHARACTERS = 400
"""Brave's limit, beside 50 words."""
MOST_CHARACTERS = 1_000
"""Of a title or a description."""

TOOL = ToolDef(
    name="brave_search",
    description="Searches the web. Returns titles, addresses and short descriptions of the pages found, best first.",
    input_schema={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What to search for, in a few words",
                "minLength": 1,
                "maxLength": MOST_QUERY_CHARACTERS,
            }
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)


class BraveSearchTool(ToolProvider):
    """The tool of one key."""

    def __init__(self, config: BraveSearch) -> None:
        self._config = config
        self._service = Service("Brave Search", config.base_url, config.api_key_env, most_bytes=MOST_BYTES)

    async def tools(self) -> Sequence[ToolDef]:
        """Return the tool, once there is a key."""
        self._service.key()
        return [TOOL]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return the pages found, and their addresses as metadata."""
        query = str(arguments["query"])
        answer = await self._service.ask(
            "GET",
            "/web/search",
            headers={"accept": "application/json", "x-subscription-token": self._service.key()},
            params={"q": query, "count": str(self._config.max_results)},
        )
        found = _results(answer.json(self._service.called))[: self._config.max_results]
        if not found:
            return ToolResult(f"No page was found for {query!r}: try other words.", {"urls": []})
        pages = [
            "\n".join(part for part in (f"{number}. {title}", url, description) if part)
            for number, (title, url, description) in enumerate(found, start=1)
        ]
        return ToolResult("\n\n".join(pages), {"urls": [url for _, url, _ in found]})

    async def close(self) -> None:
        """Close its connections."""
        await self._service.close()


def _results(answer: Any) -> list[tuple[str, str, str]]:
    """Return title, address and description of each page; `web` is missing where there is none.

    Raises:
        ToolError: it is no answer of a search.
    """
    try:
        pages = (answer.get("web") or {}).get("results") or []
        return [(_plain(page["title"]), str(page["url"]), _plain(page.get("description") or "")) for page in pages]
    except (AttributeError, KeyError, TypeError):
        raise ToolError("Brave Search answers with something that is no search result") from None


def _plain(marked: str) -> str:
    """Return a text without the tags and entities that Brave marks words with."""
    text = html.unescape(re.sub(r"</?[A-Za-z][^<>]*>", "", marked))
    return " ".join(text.split())[:MOST_CHARACTERS]

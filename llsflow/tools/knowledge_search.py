"""The tool knowledge_search: passages of the session's documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.inference import ToolDef
from llsflow.schema.toolgroups import KnowledgeSearch
from llsflow.tools.base import ToolContext, ToolProvider, ToolResult

SEARCH = ToolDef(
    name="knowledge_search",
    description="Searches the documents of this conversation, and returns the passages that answer a question.",
    input_schema={
        "type": "object",
        "properties": {"query": {"type": "string", "description": "The question, or words to look for."}},
        "required": ["query"],
        "additionalProperties": False,
    },
)


class KnowledgeSearchTool(ToolProvider):
    """Searches what the turns of a session brought along."""

    def __init__(self, config: KnowledgeSearch) -> None:
        self.config = config

    async def tools(self) -> Sequence[ToolDef]:
        """Return the one tool."""
        return [SEARCH]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return passages, with their numbers."""
        found = await context.search_documents(str(arguments["query"]), self.config.max_results)
        if not found:
            return ToolResult("This conversation has no documents.")
        return ToolResult("\n\n".join(f"[passage {number}]\n{text}" for number, text in enumerate(found, start=1)))

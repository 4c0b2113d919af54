"""Tools that the server runs: what provides them, by the `type` of a group's provider."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult

PROVIDERS: Mapping[str, str] = {
    "mcp": "mcp_server:McpTools",
    "http": "http_functions:HttpTools",
    "python": "python_functions:PythonTools",
    "brave_search": "brave_search:BraveSearchTool",
    "wolfram_alpha": "wolfram_alpha:WolframAlphaTool",
    "code_interpreter": "code_interpreter:CodeInterpreterTool",
    "photogen": "photogen:PhotogenTool",
    "knowledge_search": "knowledge_search:KnowledgeSearchTool",
}
"""Module and class of each, imported when a group of it is used first."""


def provider_of(group: ToolGroupConfig) -> ToolProvider:
    """Return what runs the tools of a group."""
    module, _, name = PROVIDERS[group.provider.type].partition(":")
    provider: ToolProvider = getattr(importlib.import_module(f"llsflow.tools.{module}"), name)(group.provider)
    return provider


__all__ = ["PROVIDERS", "ToolContext", "ToolError", "ToolProvider", "ToolResult", "provider_of"]

"""Calls of a provider's tools, each in an event loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llsflow.schema.inference import ToolDef
from llsflow.tools import ToolContext, ToolProvider, ToolResult


async def _no_documents(question: str, count: int) -> Sequence[str]:
    return []


CONTEXT = ToolContext("session", _no_documents)


def tools_of(provider: ToolProvider) -> Sequence[ToolDef]:
    """Return a provider's tools."""

    async def ask() -> Sequence[ToolDef]:
        try:
            return await provider.tools()
        finally:
            await provider.close()

    return asyncio.run(ask())


def call(provider: ToolProvider, name: str, **arguments: Any) -> ToolResult:
    """Return what a tool answers."""

    async def ask() -> ToolResult:
        try:
            return await provider.call(name, arguments, CONTEXT)
        finally:
            await provider.close()

    return asyncio.run(ask())

"""What every provider of tools is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.schema.inference import InterleavedContent, ToolDef


class ToolError(Exception):
    """A call that failed; the text is for the model, and says what to do where there is something to do."""


@dataclass(frozen=True)
class ToolContext:
    """What a call may know of its turn."""

    session_id: str
    search_documents: Callable[[str, int], Awaitable[Sequence[str]]]
    """A question and a number -> at most so many passages of the session's documents, the best first."""


@dataclass(frozen=True)
class ToolResult:
    """What a tool answered."""

    content: InterleavedContent
    """Images in it become the turn's output_attachments."""
    metadata: dict[str, Any] | None = None


class ToolProvider(ABC):
    """Tools of one group. It lives in one event loop, and is made without touching the network."""

    @abstractmethod
    async def tools(self) -> Sequence[ToolDef]:
        """Return the tools, without toolgroup_id.

        Raises:
            ConfigError: the group's configuration does not hold: what it names is not there.
            UnavailableError: its server does not answer, or a program or key that it needs is missing.
        """

    @abstractmethod
    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Run a tool with arguments that its input_schema takes. Who calls cancels it when its time is over.

        Raises:
            ToolError: it failed, and why.
        """

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """End what the group has open."""

"""The tools of a turn: those that the server runs and those that the caller runs, and one call of one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llsflow.models.calls import arguments_of
from llsflow.schema.inference import InterleavedContent, TextContentItem, ToolCall, ToolDef, ToolResponse
from llsflow.schema.kinds import or_known
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools import ToolContext, ToolError, ToolProvider, ToolResult

logger = logging.getLogger("llsflow.agents")

MOST_CHARACTERS = 100_000
"""Of an answer: what is longer is cut, and says so."""


@dataclass(frozen=True)
class ServedTool:
    """A tool that the server runs."""

    group: ToolGroupConfig
    provider: ToolProvider
    tool: ToolDef
    args: Mapping[str, Any]
    """Arguments that every call takes, whatever the model says."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def group_id(self) -> str:
        """The group's."""
        return self.group.toolgroup_id

    @cached_property
    def offered(self) -> ToolDef:
        """The tool as the model sees it: without the arguments that are given."""
        schema = dict(self.tool.input_schema or {"type": "object", "properties": {}})
        if self.args:
            properties = {name: one for name, one in schema.get("properties", {}).items() if name not in self.args}
            schema["properties"] = properties
            if "required" in schema:
                schema["required"] = [name for name in schema["required"] if name not in self.args]
        return self.tool.model_copy(update={"input_schema": schema, "toolgroup_id": self.group_id})

    @cached_property
    def _validator(self) -> Any:
        from jsonschema.validators import validator_for

        schema = self.tool.input_schema or {"type": "object"}
        return validator_for(schema)(schema)

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Run it within its group's time.

        Raises:
            ToolError: it failed, and why, in words for the model.
        """
        every = {**arguments, **{name: value for name, value in self.args.items() if self._takes(name)}}
        wrong = [f"{error.json_path}: {error.message}" for error in self._validator.iter_errors(every)]
        if wrong:
            raise ToolError(f"the arguments are not right: {'; '.join(wrong[:5])}")
        try:
            async with asyncio.timeout(self.group.timeout_seconds):
                return await self.provider.call(self.name, every, context)
        except TimeoutError:
            raise ToolError(f"no answer within {self.group.timeout_seconds:g} s") from None

    def _takes(self, name: str) -> bool:
        schema = self.tool.input_schema or {}
        return name in schema.get("properties", {}) or bool(schema.get("additionalProperties", False))


@dataclass(frozen=True)
class Toolbox:
    """What the model may call."""

    client: Sequence[ToolDef] = ()
    """Those that the caller runs."""
    served: Mapping[str, ServedTool] = field(default_factory=dict)
    """Those that the server runs, by their names."""

    @cached_property
    def definitions(self) -> Sequence[ToolDef]:
        """Every tool as the model sees it."""
        return [*(tool.offered for tool in self.served.values()), *self.client]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [tool.name for tool in self.definitions]

    def problem(self, call: ToolCall) -> str | None:
        """Return why nobody can run a call, in words for the model; None: somebody can."""
        if not call.tool_name:
            return call.arguments
        if call.tool_name not in self.names:
            return f"there is no function {str(call.tool_name)!r}{or_known(call.tool_name, self.names)}"
        if arguments_of(call.arguments) is None:
            return "the arguments are no JSON object: call it again with one"
        return None

    def is_callers(self, call: ToolCall) -> bool:
        """Return whether the caller runs a call."""
        return self.problem(call) is None and call.tool_name not in self.served

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResponse:
        """Return what a tool of the server answers; what fails is told in the answer."""
        problem, metadata = self.problem(call), None
        content: InterleavedContent = f"Error: {problem}"
        if problem is None:
            try:
                found = await self.served[str(call.tool_name)].run(arguments_of(call.arguments) or {}, context)
                content, metadata = _cut(found.content), found.metadata
            except ToolError as error:
                content = f"Error: {error}"
            except Exception as error:
                logger.exception("the tool %s failed", call.tool_name)
                content = f"Error: the tool failed ({type(error).__name__})"
        return ToolResponse(call_id=call.call_id, tool_name=call.tool_name, content=content, metadata=metadata)


def _cut(content: InterleavedContent) -> InterleavedContent:
    if isinstance(content, list):
        return [TextContentItem(text=_short(one.text)) if isinstance(one, TextContentItem) else one for one in content]
    return _short(content) if isinstance(content, str) else content


def _short(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[cut here: the answer has {len(text):,} characters]"

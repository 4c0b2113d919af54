"""The tool groups of this process: found by their names in conf/toolgroup, and what runs their tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llsflow.agents.toolbox import ServedTool, Toolbox
from llsflow.errors import ConfigError, LlsflowError, Mistake, MistakesError, NotFoundError
from llsflow.schema.agents import AgentToolGroup, AgentToolGroupWithArgs
from llsflow.schema.inference import ToolDef
from llsflow.schema.kinds import or_known
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools import ToolProvider, provider_of

Placed = tuple[str, AgentToolGroup]
"""Where it is written, and what."""


@dataclass
class ToolGroups:
    """Makes toolboxes; used in one event loop."""

    find: Callable[[str], ToolGroupConfig]
    """Returns the group of a name; NotFoundError, ConfigError."""
    _providers: dict[str, ToolProvider] = field(default_factory=dict)
    """By their configuration."""

    async def toolbox(self, groups: Sequence[Placed], client: Sequence[ToolDef] = ()) -> Toolbox:
        """Return the tools of some groups, beside those that the caller runs.

        Raises:
            ConfigError: groups or tools that are not there, arguments that no tool takes, names that are there twice:
                every mistake at once.
            UnavailableError: a group's server does not answer, or what it needs is missing.
        """
        served: dict[str, ServedTool] = {}
        mistakes: list[Mistake] = []
        own = {tool.name for tool in client}
        for where, group in groups:
            try:
                for tool in await self._tools(group):
                    if tool.name in own or tool.name in served:
                        other = served[tool.name].group_id if tool.name in served else "client_tools"
                        message = f"its tool {tool.name!r} is in {other} too: name single tools, as group/tool"
                        mistakes.append(Mistake(where, message))
                    served.setdefault(tool.name, tool)
            except MistakesError as error:
                mistakes += [Mistake(where, str(mistake)) for mistake in error.mistakes]
            except NotFoundError as error:
                mistakes.append(Mistake(where, str(error)))
        if mistakes:
            raise ConfigError(mistakes)
        return Toolbox(list(client), served)

    async def close(self) -> None:
        """End the programs and connections of every group."""
        every, self._providers = list(self._providers.values()), {}
        await asyncio.gather(*(provider.close() for provider in every), return_exceptions=True)

    async def _tools(self, group: AgentToolGroup) -> list[ServedTool]:
        name = group.name if isinstance(group, AgentToolGroupWithArgs) else group
        args = group.args if isinstance(group, AgentToolGroupWithArgs) else {}
        config, only = await asyncio.to_thread(self._found, name)
        provider = self._provider(config)
        try:
            offered = await provider.tools()
        except LlsflowError as error:
            raise _of_group(config.toolgroup_id, error) from error
        if only is not None:
            known = [tool.name for tool in offered]
            offered = [tool for tool in offered if tool.name == only]
            if not offered:
                raise NotFoundError(f"{config.toolgroup_id!r} has no tool {only!r}{or_known(only, known)}")
        if mistakes := list(_untaken(args, offered)):
            raise ConfigError(mistakes)
        return [ServedTool(config, provider, tool, args) for tool in offered]

    def _found(self, name: str) -> tuple[ToolGroupConfig, str | None]:
        """Return the group that a name is, or its group and tool."""
        try:
            return self.find(name), None
        except NotFoundError:
            group, _, tool = name.rpartition("/")
            if not group:
                raise
            return self.find(group), tool

    def _provider(self, config: ToolGroupConfig) -> ToolProvider:
        key = config.model_dump_json(exclude={"timeout_seconds"})
        if key not in self._providers:
            self._providers[key] = provider_of(config)
        return self._providers[key]


def _of_group(group_id: str, error: LlsflowError) -> LlsflowError:
    """Return an error that says which group it is of."""
    if isinstance(error, MistakesError):
        return type(error)([Mistake(f"tool group {group_id}", str(mistake)) for mistake in error.mistakes])
    return type(error)(f"tool group {group_id}: {error}")


def _untaken(args: dict[str, object], tools: Sequence[ToolDef]) -> Iterator[Mistake]:
    """Yield the arguments that no tool takes."""
    taken = sorted({name for tool in tools for name in (tool.input_schema or {}).get("properties", {})})
    open_ended = any((tool.input_schema or {}).get("additionalProperties", False) for tool in tools)
    for name in args:
        if name not in taken and not open_ended:
            yield Mistake(f"args.{name}", f"no tool of it takes that{or_known(name, taken)}")

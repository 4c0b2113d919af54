"""Functions of installed packages as tools: entry points, loaded when a group that names them is used first."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llsflow.errors import ConfigError, Mistake
from llsflow.home import code_digest
from llsflow.schema.inference import ToolDef
from llsflow.schema.kinds import or_known
from llsflow.schema.toolgroups import PythonFunctions
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult

if TYPE_CHECKING:
    from pydantic import TypeAdapter

GROUP = "llsflow.tools"
"""Entry points of this group name a tool and its function."""


@dataclass(frozen=True)
class _Loaded:
    definition: ToolDef
    function: Callable[..., Any]
    takes: TypeAdapter[Any]


def outside_code(entry_points: Sequence[str]) -> dict[str, str]:
    """Return the sha256 (hex) of the modules of tools that other packages offer, by the tools' names; imports none."""
    found = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.name in entry_points and entry.module.partition(".")[0] != __name__.partition(".")[0]:
            with contextlib.suppress(ImportError, ValueError, OSError):  # told when the tool is loaded
                spec = importlib.util.find_spec(entry.module)
                if spec is not None and spec.origin is not None:
                    found[entry.name] = code_digest(Path(spec.origin))
    return found


class PythonTools(ToolProvider):
    """Runs functions: a coroutine in the event loop, another in a thread, which goes on when its time is over.

    Parameters, by their type hints, are the arguments' schema, and the docstring is the description.
    """

    def __init__(self, config: PythonFunctions) -> None:
        self.config = config
        self._loaded: dict[str, _Loaded] | None = None

    async def tools(self) -> Sequence[ToolDef]:
        """Return the functions."""
        if self._loaded is None:
            self._loaded = await asyncio.to_thread(self._load)
        return [loaded.definition for loaded in self._loaded.values()]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Call a function; what it returns is told as text, or as JSON."""
        from pydantic import ValidationError
        from pydantic_core import ArgsKwargs, to_json

        await self.tools()
        assert self._loaded is not None  # noqa: S101 - tools() has loaded them
        loaded = self._loaded[name]
        try:
            if inspect.iscoroutinefunction(loaded.function):
                found = await loaded.takes.validate_python(ArgsKwargs((), dict(arguments)))
            else:
                found = await asyncio.to_thread(loaded.takes.validate_python, ArgsKwargs((), dict(arguments)))
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
            raise ToolError("; ".join(wrong)) from None
        except Exception as error:
            raise ToolError(str(error) or type(error).__name__) from error
        return ToolResult(found if isinstance(found, str) else to_json(found, fallback=str).decode())

    def _load(self) -> dict[str, _Loaded]:
        known = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
        loaded: dict[str, _Loaded] = {}
        mistakes: list[Mistake] = []
        for place, name in enumerate(self.config.entry_points):
            where = f"provider.entry_points.{place}"
            if name not in known:
                message = f"no installed package offers {name!r}{or_known(name, sorted(known))}"
                mistakes.append(Mistake(where, message))
                continue
            try:
                loaded[name] = _loaded(name, known[name].load())
            except Exception as error:
                mistakes.append(Mistake(where, f"{known[name].value} cannot be used as a tool: {error}"))
        if mistakes:
            raise ConfigError(mistakes)
        return loaded


def _loaded(name: str, function: Any) -> _Loaded:
    from pydantic import TypeAdapter, validate_call

    if not inspect.isroutine(function):
        raise TypeError("it is no function")
    takes: TypeAdapter[Any] = TypeAdapter(cast("Any", validate_call(function)))
    schema = takes.json_schema()
    if schema.get("type") != "object":
        raise TypeError("its parameters are positional only: give them names")
    schema.setdefault("additionalProperties", False)
    described = ToolDef(name=name, description=inspect.getdoc(function), input_schema=json.loads(json.dumps(schema)))
    return _Loaded(described, function, takes)

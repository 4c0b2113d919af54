"""Functions as tools: entry points of a package that is really installed, in a folder of this test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from llsflow.errors import ConfigError
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools import ToolContext, ToolError, ToolProvider, provider_of

CODE = '''
def shout(text: str, times: int = 1) -> str:
    """Says it loudly."""
    return text.upper() * times

async def later(numbers: list[int]) -> dict[str, int]:
    return {"sum": sum(numbers)}

def fails() -> str:
    raise RuntimeError("no luck today")

def positional(x, /): ...

no_function = 3
'''


async def nothing(_: str, __: int) -> Sequence[str]:
    return []


CONTEXT = ToolContext("session", nothing)


def provider(*names: str) -> ToolProvider:
    given = {"toolgroup_id": "own", "provider": {"type": "python", "entry_points": list(names)}}
    return provider_of(ToolGroupConfig.model_validate(given))


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with tools."""
    (tmp_path / "loud.py").write_text(CODE)
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    names = ("shout", "later", "fails", "positional", "no_function")
    (info / "entry_points.txt").write_text("[llsflow.tools]\n" + "".join(f"{name} = loud:{name}\n" for name in names))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_function_is_a_tool_by_its_hints() -> None:
    (tool,) = asyncio.run(provider("shout").tools())
    assert (tool.name, tool.description) == ("shout", "Says it loudly.")
    assert tool.input_schema is not None
    assert tool.input_schema["required"] == ["text"]
    assert tool.input_schema["properties"]["times"]["type"] == "integer"
    assert tool.input_schema["additionalProperties"] is False


def test_functions_are_called_and_what_they_return_is_told() -> None:
    async def call() -> None:
        own = provider("shout", "later", "fails")
        assert (await own.call("shout", {"text": "hey", "times": 2}, CONTEXT)).content == "HEYHEY"
        assert json.loads(str((await own.call("later", {"numbers": [1, 2]}, CONTEXT)).content)) == {"sum": 3}
        with pytest.raises(ToolError, match="no luck today"):
            await own.call("fails", {}, CONTEXT)
        with pytest.raises(ToolError, match="times: Input should be a valid integer"):
            await own.call("shout", {"text": "hey", "times": "x"}, CONTEXT)

    asyncio.run(call())


def test_what_is_no_tool_is_refused_together() -> None:
    with pytest.raises(ConfigError) as refused:
        asyncio.run(provider("shot", "positional", "no_function").tools())
    for told in (
        "provider.entry_points.0: no installed package offers 'shot'; did you mean 'shout'?",
        "loud:positional cannot be used as a tool",
        "loud:no_function cannot be used as a tool: it is no function",
    ):
        assert told in str(refused.value)

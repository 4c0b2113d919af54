"""Tools of a real MCP server: a program over stdio, and one behind HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.inference import ImageContentItem
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools import ToolContext, ToolError, ToolProvider, provider_of

SERVER = """
    import os, sys
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Image

    server = MCPServer("things")

    @server.tool()
    def add(x: int, y: int) -> int:
        "Adds."
        return x + y

    @server.tool()
    def secret() -> str:
        return f"{os.environ.get('GIVEN')} {os.environ.get('KEPT')}"

    @server.tool()
    def end() -> str:
        os._exit(3)

    @server.tool()
    def draw() -> Image:
        return Image(data=b"\\x89PNG....", format="png")

    if len(sys.argv) > 1:
        import uvicorn
        print(sys.argv[1], flush=True)
        uvicorn.run(server.streamable_http_app(), port=int(sys.argv[1]), log_level="critical")
    else:
        server.run()
"""


async def nothing(_: str, __: int) -> Sequence[str]:
    return []


CONTEXT = ToolContext("session", nothing)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A server."""
    path = tmp_path / "things.py"
    path.write_text(textwrap.dedent(SERVER))
    return path


def provider(**given: Any) -> ToolProvider:
    return provider_of(ToolGroupConfig.model_validate({"toolgroup_id": "things", "provider": {"type": "mcp", **given}}))


def run(provider: ToolProvider, work: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        try:
            await work
        finally:
            await provider.close()

    asyncio.run(whole())


def children() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


def test_a_program_is_spoken_to_and_ended(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "for it")
    monkeypatch.setenv("KEPT", "not for it")
    things = provider(command=[sys.executable, str(program)], environment=["GIVEN"])

    async def talk() -> None:
        tools = {tool.name: tool for tool in await things.tools()}
        assert tools["add"].description == "Adds."
        assert tools["add"].input_schema is not None
        assert tools["add"].input_schema["required"] == ["x", "y"]
        assert (await things.call("add", {"x": 41, "y": 1}, CONTEXT)).content == "42"
        assert (await things.call("secret", {}, CONTEXT)).content == "for it None"
        with pytest.raises(ToolError, match="x"):
            await things.call("add", {"x": "forty", "y": 1}, CONTEXT)
        image, *_ = [one for one in (await things.call("draw", {}, CONTEXT)).content if not isinstance(one, str)]
        assert isinstance(image, ImageContentItem)
        assert any(str(program) in child for child in children())

    run(things, talk())
    assert not any(str(program) in child for child in children())


def test_a_program_that_ended_is_started_again(program: Path) -> None:
    things = provider(command=[sys.executable, str(program)])

    async def talk() -> None:
        await things.tools()
        with pytest.raises(ToolError):
            await things.call("end", {}, CONTEXT)
        assert (await things.call("add", {"x": 41, "y": 1}, CONTEXT)).content == "42"

    run(things, talk())


def test_calls_go_at_once_and_one_that_is_cancelled_leaves_the_others(program: Path) -> None:
    things = provider(command=[sys.executable, str(program)])

    async def talk() -> None:
        await things.tools()
        calls = [asyncio.create_task(things.call("add", {"x": n, "y": 1}, CONTEXT)) for n in range(20)]
        calls[3].cancel()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [one.content for one in found if not isinstance(one, BaseException)] == [
            str(n + 1) for n in range(20) if n != 3
        ]

    run(things, talk())


@pytest.fixture
def url(program: Path) -> Iterator[str]:
    """Where a server answers by HTTP."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, str(program), str(port)], stdout=subprocess.PIPE, env=os.environ) as server:
        try:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.terminate()


def test_a_server_behind_http_is_spoken_to(url: str) -> None:
    things = provider(url=url)

    async def talk() -> None:
        assert "add" in {tool.name for tool in await things.tools()}
        assert (await things.call("add", {"x": 41, "y": 1}, CONTEXT)).content == "42"

    run(things, talk())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"command": ["no-such-program"]}, "there is no program 'no-such-program'"),
        ({"command": [sys.executable, "-c", "pass"]}, "does not answer"),
        ({"command": [sys.executable], "environment": ["NOT_SET"]}, "the environment variable NOT_SET is not set"),
        ({"url": "http://127.0.0.1:9/mcp"}, "does not answer"),
        ({"url": "http://127.0.0.1:9/mcp", "api_key_env": "NOT_SET"}, "NOT_SET is not set"),
    ],
)
def test_a_server_that_is_not_there_is_told(given: dict[str, Any], told: str) -> None:
    things = provider(**given)

    async def talk() -> None:
        with pytest.raises(UnavailableError, match=told):
            await things.tools()

    run(things, talk())

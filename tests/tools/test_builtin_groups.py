"""The groups of conf/toolgroup that hold the built-in tools: their files, and what their records refuse."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llsflow.config import packaged_conf
from llsflow.schema.inference import BuiltinTool
from llsflow.schema.toolgroups import (
    BraveSearch,
    CodeInterpreter,
    HttpFunctions,
    McpServer,
    Photogen,
    ToolGroupConfig,
    WolframAlpha,
)
from llsflow.tools import provider_of

FILES = {"websearch": "brave_search", "wolfram_alpha": "wolfram_alpha"}
FILES |= {"code_interpreter": "code_interpreter", "photogen": "photogen"}


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_every_file_is_a_group_of_a_built_in_tool(name: str, kind: str) -> None:
    text = (packaged_conf() / "toolgroup" / f"{name}.yaml").read_text("utf-8")
    group = ToolGroupConfig.model_validate(yaml.safe_load(text.replace("???", "http://127.0.0.1:8000/v1")))
    assert group.toolgroup_id == f"builtin::{name}"
    assert group.provider.type == kind == BuiltinTool(kind).value
    assert type(provider_of(group)).__name__.startswith(kind.title().replace("_", ""))


@pytest.mark.parametrize(
    ("record", "fields", "sentence"),
    [
        (BraveSearch, {"api_key_env": "sk-0123"}, "is no name of an environment variable"),
        (BraveSearch, {"max_results": 21}, "less than or equal to 20"),
        (BraveSearch, {"base_url": "ftp://x"}, "'ftp://x' is no address"),
        (WolframAlpha, {"base_url": "https://me:pass@x"}, "an address must not hold a password"),
        (Photogen, {"base_url": "x"}, "'x' is no address"),
        (Photogen, {"base_url": "http://x", "response_format": "png"}, "'b64_json' or 'url'"),
        (Photogen, {"base_url": "http://x/v1?key=1"}, "leave out what begins with"),
        (McpServer, {"url": "127.0.0.1:8000/mcp"}, "'127.0.0.1:8000/mcp' is no address"),
        (McpServer, {"url": "https://x/mcp", "api_key_env": "sk-0123"}, "is no name of an environment variable"),
        (McpServer, {"command": ["x"], "environment": ["A=sk-0123"]}, "is no name of an environment variable"),
        (HttpFunctions, {"base_url": "ftp://x", "functions": [{"name": "f", "path": "/"}]}, "'ftp://x' is no address"),
        (CodeInterpreter, {"memory_mb": 64}, "greater than or equal to 128"),
        (CodeInterpreter, {"cpu_seconds": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_hold_is_refused(record: Any, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence) as raised:
        record.model_validate(fields)
    assert len(raised.value.errors()) == 1


def test_a_server_of_tools_may_have_a_query() -> None:
    assert McpServer(url="https://x/mcp?team=1").url == "https://x/mcp?team=1"


def test_a_slash_at_the_end_of_an_address_is_none() -> None:
    assert Photogen(base_url="http://127.0.0.1:8000/v1/").base_url == "http://127.0.0.1:8000/v1"

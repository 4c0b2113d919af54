"""What comes of the parts of an MCP server's result."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from mcp.types import CallToolResult

from llsflow.schema.inference import ImageContentItem, TextContentItem
from llsflow.tools.base import ToolError
from llsflow.tools.mcp_server import _result

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()


def result(*content: dict[str, Any], **more: Any) -> Any:
    return _result(CallToolResult.model_validate({"content": list(content), **more})).content


def resource(**given: Any) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": "file:///a", **given}}


def blob(content: bytes, kind: str) -> dict[str, Any]:
    return resource(blob=base64.b64encode(content).decode(), mimeType=kind)


def image(data: str, kind: str) -> dict[str, Any]:
    return {"type": "image", "data": data, "mimeType": kind}


def test_each_resource_says_which_it_is() -> None:
    told = result(resource(text="A"), {"type": "resource", "resource": {"uri": "file:///b", "text": "B"}})
    assert told == "[resource file:///a]\nA\n[resource file:///b]\nB"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (blob("caf\u00e9".encode("latin-1"), "text/plain; charset=iso-8859-1"), "[resource file:///a]\ncaf\u00e9"),
        (blob(b"{}", "application/json; charset=utf-8"), "[resource file:///a]\n{}"),
        (blob(b"{}", "application/ld+json"), "[resource file:///a]\n{}"),
        (blob(b"a: 1", "application/yaml"), "[resource file:///a]\na: 1"),
        (blob(b"PK", "application/zip"), "[resource file:///a: application/zip, 2 bytes, not shown here]"),
        (resource(blob="no base64!", mimeType="text/plain"), "[resource file:///a: text/plain, 7 bytes, not shown"),
        (image("PHN2Zz4=", "image/svg+xml"), "[image, image/svg+xml, 5 bytes, which cannot be shown here]"),
        (image("", "image/png"), "[image, image/png, 0 bytes, which cannot be shown here]"),
    ],
)
def test_parts_that_are_text_or_become_a_line(given: dict[str, Any], told: str) -> None:
    assert str(result(given)).startswith(told)


def test_an_image_that_endpoints_take_stays_one() -> None:
    text, shown = result({"type": "text", "text": "see"}, image(PNG, "image/png"))
    assert isinstance(text, TextContentItem)
    assert isinstance(shown, ImageContentItem)


def test_an_error_names_the_images_that_came_with_it() -> None:
    with pytest.raises(ToolError, match=r"^no such page\n\[image, image/png, not shown\]$"):
        result({"type": "text", "text": "no such page"}, image(PNG, "image/png"), isError=True)

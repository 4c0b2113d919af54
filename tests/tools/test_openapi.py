"""Operations of an OpenAPI document as tools, asked of a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from llsflow.errors import ConfigError, UnavailableError
from llsflow.schema.toolgroups import ToolGroupConfig
from llsflow.tools import ToolContext, ToolError, ToolProvider, provider_of
from tests.http_server import Handler, serve
from tests.scripted import Answer, scripted

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/v1/orders/{order_id}": {
            "parameters": [{"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "get_order",
                "summary": "Looks an order up.",
                "parameters": [{"$ref": "#/components/parameters/Detail"}],
            },
            "post": {
                "operationId": "change_order",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Change"}}}},
            },
        },
        "/v1/files": {"post": {"operationId": "upload", "requestBody": {"content": {"text/csv": {}}}}},
    },
    "components": {
        "parameters": {
            "Detail": {"name": "detail", "in": "query", "description": "How much.", "schema": {"type": "integer"}}
        },
        "schemas": {
            "Change": {
                "type": "object",
                "properties": {"amount": {"$ref": "#/components/schemas/Amount"}},
                "required": ["amount"],
            },
            "Amount": {"type": "integer", "minimum": 1},
        },
    },
}


async def nothing(_: str, __: int) -> Sequence[str]:
    return []


CONTEXT = ToolContext("session", nothing)


def provider(folder: Path, document: Any = DOCUMENT, **given: Any) -> ToolProvider:
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(document))
    of = {"type": "http", "base_url": "http://127.0.0.1:9", "openapi": str(path), **given}
    return provider_of(ToolGroupConfig.model_validate({"toolgroup_id": "shop", "provider": of}))


def test_operations_are_tools(tmp_path: Path) -> None:
    shop = provider(tmp_path, operations=["get_order", "change_order"])
    look, change = asyncio.run(shop.tools())
    assert (look.name, look.description) == ("get_order", "Looks an order up.")
    assert look.input_schema == {
        "type": "object",
        "properties": {
            "order_id": {"type": "string"},
            "detail": {"type": "integer", "description": "How much."},
        },
        "required": ["order_id"],
        "additionalProperties": False,
    }
    assert change.input_schema is not None
    assert change.input_schema["properties"]["amount"] == {"type": "integer", "minimum": 1}
    assert change.input_schema["required"] == ["order_id", "amount"]


def test_a_call_is_the_request_that_the_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "a secret")
    with scripted(lambda body, number: Answer(body={"amount": body["amount"]})) as server:
        base = server.url.removesuffix("/v1")
        shop = provider(tmp_path, base_url=base, operations=["change_order"], api_key_env="SHOP_KEY")

        async def call() -> None:
            given = {"order_id": "a/b ?c", "amount": 3}
            assert json.loads(str((await shop.call("change_order", given, CONTEXT)).content)) == {"amount": 3}
            await shop.close()

        asyncio.run(call())
    assert server.paths == ["/v1/orders/a%2Fb%20%3Fc"]
    assert server.sent == [{"amount": 3}]
    assert server.headers[0]["Authorization"] == "Bearer a secret"


STYLES = {
    "openapi": "3.0.3",
    "paths": {
        "/things/{ids}": {
            "parameters": [
                {"name": "ids", "in": "path", "required": True, "schema": {"type": "array"}},
                {"name": "limit", "in": "query", "required": True, "schema": {"type": "string"}},
            ],
            "get": {
                "parameters": [
                    {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                    {"name": "sort", "in": "query", "schema": {"type": "object"}},
                    {"name": "page", "in": "query", "explode": False, "schema": {"type": "object"}},
                    {
                        "name": "limit",
                        "in": "query",
                        "required": True,
                        "schema": {"type": "integer", "minimum": 1, "exclusiveMinimum": True, "nullable": True},
                    },
                ]
            },
            "delete": {"parameters": [{"name": "x", "in": "query", "style": "form", "schema": {}}]},
        },
        "/all": {"$ref": "#/components/pathItems/All"},
        "/odd/{m}": {
            "get": {
                "operationId": "odd",
                "parameters": [{"name": "m", "in": "path", "style": "matrix", "required": True, "schema": {}}],
            }
        },
        "/twice": {"get": {"operationId": "clear"}},
    },
    "components": {
        "pathItems": {
            "All": {
                "delete": {
                    "operationId": "clear",
                    "requestBody": {
                        "content": {"application/json": {"schema": {"properties": {"why": {"type": "string"}}}}}
                    },
                }
            }
        }
    },
}


def test_parameters_go_in_the_styles_that_the_document_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[tuple[str, str, bytes]] = []

    class Things(Handler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_DELETE = do_GET

    given = {"ids": ["a", "b/c"], "filter": {"color": "red"}, "sort": {"by": "x"}, "page": {"at": 2}, "limit": 3}
    with serve(Things) as port:
        things = provider(tmp_path, STYLES, base_url=f"http://127.0.0.1:{port}")

        async def call() -> list[Any]:
            tools = list(await things.tools())
            await things.call("clear", {"why": "old"}, CONTEXT)
            await things.call("get_things_ids", given, CONTEXT)
            await things.close()
            return tools

        tools = {tool.name: tool.input_schema for tool in asyncio.run(call())}
    assert asked == [
        ("DELETE", "/all", b'{"why":"old"}'),
        ("GET", "/things/a,b%2Fc?filter[color]=red&by=x&page=at,2&limit=3", b""),
    ]
    assert tools.keys() == {"get_things_ids", "delete_things_ids", "clear"}
    assert tools["get_things_ids"]["required"] == ["ids", "limit"]
    assert tools["get_things_ids"]["properties"]["limit"] == {"type": ["integer", "null"], "exclusiveMinimum": 1}
    left_out = " ".join(record.getMessage() for record in caplog.records)
    assert "odd: the parameter 'm' goes into the path in the style matrix" in left_out
    assert "clear: the operationId is there twice" in left_out


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with scripted(lambda *_: Answer(status=302, headers={"Location": "http://127.0.0.1:9/"})) as server:
        shop = provider(tmp_path, base_url=server.url, operations=["change_order"])

        async def call() -> None:
            with pytest.raises(ToolError, match="HTTP 302"):
                await shop.call("change_order", {"order_id": "x", "amount": 3}, CONTEXT)
            await shop.close()

        asyncio.run(call())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"operations": ["upload"]}, "upload: its body is text/csv: application/json is sent"),
        ({"operations": ["get_ordr"]}, "no operationId 'get_ordr'; did you mean 'get_order'?"),
        ({"document": {"swagger": "2.0"}}, "is no OpenAPI 3 document"),
        ({"document": ["x"]}, "it holds no mapping"),
        ({"openapi": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"operations": ["get_order"], "functions": [{"name": "get_order", "path": "/x"}]}, "is there twice"),
        ({"operations": [], "functions": [{"name": "f", "path": "x/{y}"}]}, "begin it with /"),
        ({"operations": [], "functions": [{"name": "f", "path": "x/{y}"}]}, "has no y, which the path takes"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        asyncio.run(provider(tmp_path, **given).tools())


def test_a_document_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["components"]["schemas"]["Amount"] = {"items": {"$ref": "#/components/schemas/Amount"}}
    with pytest.raises(ConfigError, match="change_order: its schema refers to itself"):
        asyncio.run(provider(tmp_path, document, operations=["change_order"]).tools())


def test_a_key_that_is_not_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="the environment variable NOT_SET is not set"):
        asyncio.run(provider(tmp_path, api_key_env="NOT_SET").tools())

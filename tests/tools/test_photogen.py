"""photogen: what is asked, and which image comes back."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llsflow.errors import UnavailableError
from llsflow.schema.inference import ImageContentItem, TextContentItem
from llsflow.schema.toolgroups import Photogen
from llsflow.tools.base import ToolError, ToolResult
from llsflow.tools.photogen import PhotogenTool
from tests.tools.calling import call, tools_of
from tests.tools.recorded import Recorded, Reply, recorded

PNG = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
).decode()
MADE = {"created": 1713833628, "data": [{"b64_json": PNG, "revised_prompt": "A cat, asleep"}]}
"""As in platform.openai.com/docs/api-reference/images/create."""


def make(site: Recorded, **changes: Any) -> ToolResult:
    return call(PhotogenTool(Photogen(base_url=site.url, **changes)), "photogen", query="a cat")


def test_the_request_is_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_KEY", "sk-very-secret")
    with recorded(Reply(MADE)) as site:
        make(site, model="flux", size="512x512", api_key_env="IMAGES_KEY")
        make(site, response_format=None)
    first, second = site.asked
    assert (first.method, first.path) == ("POST", "/v1/images/generations")
    assert first.body == {
        "prompt": "a cat",
        "n": 1,
        "model": "flux",
        "size": "512x512",
        "response_format": "b64_json",
    }
    assert first.headers["authorization"] == "Bearer sk-very-secret"
    assert second.body == {"prompt": "a cat", "n": 1}
    assert "authorization" not in second.headers


def test_the_image_comes_with_a_word_on_it() -> None:
    with recorded(Reply(MADE)) as site:
        made = make(site)
    assert made.content == [
        TextContentItem(text="The image was made, and the user sees it. It was made for: A cat, asleep"),
        ImageContentItem.model_validate({"image": {"data": PNG}}),
    ]


def test_an_address_does_where_the_server_gives_no_data() -> None:
    with recorded(Reply({"data": [{"url": "https://images.example/1.png"}]})) as site:
        made = make(site)
    assert isinstance(made.content, list)
    image = made.content[1]
    assert isinstance(image, ImageContentItem)
    assert image.image.url is not None
    assert image.image.url.uri == "https://images.example/1.png"


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{}],
        {},
        [{"b64_json": "no base64!"}],
        [{"b64_json": base64.b64encode(b"<script>").decode()}],
        [{"b64_json": 5}],
        [{"url": "file:///etc/passwd"}],
        [{"url": "javascript:alert(1)"}],
    ],
)
def test_what_is_no_image_is_told(data: Any) -> None:
    with recorded(Reply({"data": data})) as site, pytest.raises(ToolError, match="something that is no image"):
        make(site)


def test_a_refused_description_is_told() -> None:
    refused = Reply({"error": {"message": "Your request was rejected by the safety system.", "code": "x"}}, 400)
    with recorded(refused) as site, pytest.raises(ToolError, match="HTTP 400: Your request was rejected by the safety"):
        make(site)


def test_the_tool_is_there_once_a_key_is_where_one_is_named() -> None:
    (tool,) = tools_of(PhotogenTool(Photogen(base_url="http://127.0.0.1:1/v1")))
    assert (tool.name, (tool.input_schema or {})["required"]) == ("photogen", ["query"])
    with pytest.raises(UnavailableError, match="NO_SUCH_KEY is not set"):
        tools_of(PhotogenTool(Photogen(base_url="http://127.0.0.1:1/v1", api_key_env="NO_SUCH_KEY")))

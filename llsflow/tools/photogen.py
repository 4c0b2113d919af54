"""photogen: images by description, from any server that has OpenAI's images endpoint.

Source: platform.openai.com/docs/api-reference/images/create.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from llsflow.schema.inference import ImageContentItem, TextContentItem, ToolDef
from llsflow.schema.toolgroups import Photogen
from llsflow.tools.base import ToolContext, ToolError, ToolProvider, ToolResult
from llsflow.tools.images import image_item
from llsflow.tools.service import Service

MOST_BYTES = 24 << 20
"""Of an answer: an image of 16 MiB and a little, in base64."""

TOOL = ToolDef(
    name="photogen",
    description="Makes an image from a description, and shows it to the user.",
    input_schema={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What the image shows, in as much detail as matters",
                "minLength": 1,
            }
        },
        "required": ["query"],
        "additionalProperties": False,
    },
)
"""Its argument is called query, as Llama models call that of every tool they were trained with."""


class PhotogenTool(ToolProvider):
    """The tool of one server."""

    def __init__(self, config: Photogen) -> None:
        self._config = config
        self._service = Service("the images server", config.base_url, config.api_key_env, most_bytes=MOST_BYTES)

    async def tools(self) -> Sequence[ToolDef]:
        """Return the tool, once there is a key where one is named."""
        self._service.key()
        return [TOOL]

    async def call(self, name: str, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Return one image, with a word on it for the model."""
        key = self._service.key()
        given = {
            "model": self._config.model,
            "size": self._config.size,
            "response_format": self._config.response_format,
        }
        answer = await self._service.ask(
            "POST",
            "/images/generations",
            headers={"authorization": f"Bearer {key}"} if key else {},
            body={"prompt": str(arguments["query"]), "n": 1, **{k: v for k, v in given.items() if v is not None}},
        )
        told = answer.json(self._service.called)
        try:
            image, revised = _image(told["data"][0]), told["data"][0].get("revised_prompt")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise ToolError("the images server answers with something that is no image") from None
        text = "The image was made, and the user sees it."
        if isinstance(revised, str):
            text += f" It was made for: {revised}"
        return ToolResult([TextContentItem(text=text), image])

    async def close(self) -> None:
        """Close its connections."""
        await self._service.close()


def _image(made: Mapping[str, Any]) -> ImageContentItem:
    """Return the image in an answer: its data, or where it lies, which the user's side fetches.

    Raises:
        ValueError: there is none.
    """
    if data := made.get("b64_json"):
        return image_item(data)
    url = made.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("https", "http"):
        raise ValueError("neither b64_json nor url")
    return ImageContentItem.model_validate({"image": {"url": {"uri": url}}})

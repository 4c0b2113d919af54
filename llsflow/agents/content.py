"""Content of messages, as models take it."""

from __future__ import annotations

from typing import Any

from llsflow.schema.inference import ContentItem, ImageContentItem, InterleavedContent


def items_of(content: InterleavedContent) -> list[ContentItem | str]:
    """Return content as a list of its parts."""
    return [*content] if isinstance(content, list) else [content]


def text_of(content: InterleavedContent) -> str:
    """Return the texts of some content, a line between two."""
    texts = (item for item in items_of(content) if not isinstance(item, ImageContentItem))
    return "\n".join(item if isinstance(item, str) else item.text for item in texts)


def has_images(content: InterleavedContent) -> bool:
    """Return whether there is an image in it."""
    return any(isinstance(item, ImageContentItem) for item in items_of(content))


def wire(content: InterleavedContent) -> str | list[dict[str, Any]]:
    """Return content as the OpenAI protocol has it: a text, or parts where there are images.

    Source: platform.openai.com/docs/api-reference/chat/create, messages.content.
    """
    if not has_images(content):
        return text_of(content)
    return [_part(item) for item in items_of(content)]


def _part(item: ContentItem | str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    if not isinstance(item, ImageContentItem):
        return {"type": "text", "text": item.text}
    image = item.image
    address = image.url.uri if image.url else f"data:image/png;base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": address}}

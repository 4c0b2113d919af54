"""Content of messages, as models take it."""

from __future__ import annotations

import mimetypes
import re
from typing import Any

from llsflow.schema.inference import ContentItem, ImageContentItem, InterleavedContent
from llsflow.tools.images import IMAGE_STARTS

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)")


def items_of(content: InterleavedContent) -> list[ContentItem | str]:
    """Return content as a list of its parts."""
    return [*content] if isinstance(content, list) else [content]


def text_of(content: InterleavedContent) -> str:
    """Return the texts of some content, a line between two."""
    texts = (item for item in items_of(content) if not isinstance(item, ImageContentItem))
    return "\n".join(item if isinstance(item, str) else item.text for item in texts)


def described(content: InterleavedContent, where: str) -> str:
    """Return some content as text: for each image a line that says what it is, and where."""
    lines = []
    for item in items_of(content):
        if isinstance(item, ImageContentItem):
            lines.append(f"[an image, {mime_type_of(item) or 'of an unknown type'}: {where}]")
        else:
            lines.append(item if isinstance(item, str) else item.text)
    return "\n".join(lines)


def images_of(content: InterleavedContent) -> list[ImageContentItem]:
    """Return the images in some content."""
    return [item for item in items_of(content) if isinstance(item, ImageContentItem)]


def has_images(content: InterleavedContent) -> bool:
    """Return whether there is an image in it."""
    return bool(images_of(content))


def mime_type_of(item: ImageContentItem) -> str | None:
    """Return an image's MIME type, as its URL says or its bytes show; None: neither does."""
    if item.image.url is None:
        data = item.image.data or ""
        return next((kind for start, kind in IMAGE_STARTS.items() if data.startswith(start)), None)
    if found := _DATA_URL.match(item.image.url.uri):
        return found[1]
    return mimetypes.guess_type(item.image.url.uri)[0]


def wire(content: InterleavedContent) -> str | list[dict[str, Any]]:
    """Return content as the OpenAI protocol has it: a text, or parts where there are images.

    Source: platform.openai.com/docs/api-reference/chat/create, messages.content.
    """
    if not has_images(content):
        return text_of(content)
    return [part(item) for item in items_of(content)]


def part(item: ContentItem | str) -> dict[str, Any]:
    """Return a part of content as the protocol has it."""
    if isinstance(item, str):
        return {"type": "text", "text": item}
    if not isinstance(item, ImageContentItem):
        return {"type": "text", "text": item.text}
    image = item.image
    address = image.url.uri if image.url else f"data:{mime_type_of(item) or 'image/png'};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": address}}

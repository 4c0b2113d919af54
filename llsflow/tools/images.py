"""Images that tools make: what is one, and how it goes into an answer."""

from __future__ import annotations

import base64
import binascii
import re

from llsflow.schema.inference import ImageContentItem

SIGNATURES = {"PNG": rb"\x89PNG\r\n\x1a\n", "JPEG": rb"\xff\xd8\xff", "WebP": rb"RIFF....WEBP"}
"""What files begin with. Source: PNG 3rd edition, 5.2; ITU-T T.81, B.1; the WebP container specification."""

IMAGE_STARTS = {"iVBOR": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklGR": "image/webp"}
"""How images of each MIME type begin, in base64."""


def image_item(data: str) -> ImageContentItem:
    """Return an image of base64.

    Raises:
        ValueError: it is no base64, or no image.
    """
    try:
        begin = base64.b64decode(data, validate=True)[:12]
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    if not any(re.match(signature, begin, re.DOTALL) for signature in SIGNATURES.values()):
        raise ValueError(f"is no image, allowed: {', '.join(SIGNATURES)}")
    return ImageContentItem.model_validate({"image": {"data": data}})

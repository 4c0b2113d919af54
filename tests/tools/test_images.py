"""What is an image."""

from __future__ import annotations

import base64

import pytest

from llsflow.tools.images import image_item


@pytest.mark.parametrize("begin", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\n\x10\x00\x00WEBPVP8 "])
def test_images_are_known_by_how_they_begin(begin: bytes) -> None:
    data = base64.b64encode(begin + bytes(100)).decode()
    assert image_item(data).image.data == data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (base64.b64encode(b"<svg>").decode(), "is no image, allowed: PNG, JPEG, WebP"),
        (base64.b64encode(b"RIFF\n\x10\x00\x00WAVE").decode(), "is no image"),
        (base64.b64encode(b" \x89PNG\r\n\x1a\n").decode(), "is no image"),
        ("", "is no image"),
        ("iVBORw0KGgo*", "is no base64"),
        ("ü", "is no base64"),
    ],
)
def test_anything_else_is_none(data: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        image_item(data)

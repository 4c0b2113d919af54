"""Documents that go with a turn: read to text, and put behind the user's message with their borders marked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

from llsflow.agents.content import has_images, text_of
from llsflow.errors import ConfigError, DataError, Mistake
from llsflow.schema.agents import Document
from llsflow.schema.inference import URL
from llsflow.schema.server import FetchConfig

TEXTS = ("application/json", "application/yaml", "application/x-yaml")
"""MIME types that are text, beside text/*."""
HTML = ("text/html", "application/xhtml+xml")
MOST_CHARACTERS = 32_000
"""Of all documents of a turn, which go to the model whole."""
SILENT = ("script", "style", "template", "noscript")


def read_documents(documents: Sequence[Document], fetching: FetchConfig) -> list[str]:
    """Return the text of each document.

    Raises:
        ConfigError: every document that cannot be read, and why, at once.
    """
    texts: list[str] = []
    mistakes: list[Mistake] = []
    for number, document in enumerate(documents):
        try:
            texts.append(_read(document, fetching))
        except DataError as error:
            mistakes += [Mistake(f"documents.{number}.content", str(mistake)) for mistake in error.mistakes]
        except ValueError as error:
            mistakes.append(Mistake(f"documents.{number}", str(error)))
    characters = sum(map(len, texts))
    if characters > MOST_CHARACTERS:
        message = f"are {characters:,} characters of text, allowed: {MOST_CHARACTERS:,}; send the parts that matter"
        mistakes.append(Mistake("documents", message))
    if mistakes:
        raise ConfigError(mistakes)
    return texts


def inserted(texts: Sequence[str]) -> str:
    """Return documents as they stand behind the user's message."""
    return "".join(
        f"\n\n[document {number}]\n{text}\n[end of document {number}]" for number, text in enumerate(texts, start=1)
    )


def _read(document: Document, fetching: FetchConfig) -> str:
    kind = document.mime_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in (*TEXTS, *HTML)):
        raise ValueError(f"mime_type is {kind!r}, allowed: text/…, {', '.join((*TEXTS, HTML[1]))}")
    if isinstance(document.content, URL):
        text = _text(_bytes_at(document.content.uri, fetching))
    elif has_images(document.content):
        raise ValueError("content holds an image: send it in a message, to a model that sees")
    else:
        text = text_of(document.content)
        if text.startswith("data:"):
            text = _text(_bytes_at(text, fetching))
    return text_of_html(text) if kind in HTML else text


def _bytes_at(uri: str, fetching: FetchConfig) -> bytes:
    """Return what a URL holds: the data in it, or what is fetched by the server's rules.

    Source: RFC 2397 for data URLs.
    """
    if uri.startswith("data:"):
        head, comma, body = uri.partition(",")
        if not comma:
            raise ValueError("is no data URL: write data:MIME;base64,DATA")
        try:
            return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
        except binascii.Error as error:
            raise ValueError(f"the data URL is no base64: {error}") from None
    from llsflow.data.fetch import fetch

    with fetch(uri, fetching) as fetched:
        return fetched.file.read()


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("content is no text in UTF-8") from None


class _Page(HTMLParser):
    """Collects the text of a page, a line for each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent += tag in SILENT

    def handle_endtag(self, tag: str) -> None:
        self.silent -= tag in SILENT and self.silent > 0

    def handle_data(self, data: str) -> None:
        if not self.silent and data.strip():
            self.lines.append(" ".join(data.split()))


def text_of_html(page: str) -> str:
    """Return what a reader sees of a page, a line for each piece of text."""
    parser = _Page()
    parser.feed(page)
    parser.close()
    return "\n".join(parser.lines)

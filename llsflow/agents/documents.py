"""Documents that go with a turn: read to text, and put behind the user's message with their borders marked."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import os
import re
from collections.abc import Sequence
from email.message import Message
from urllib.parse import unquote_to_bytes

from llsflow.agents.content import has_images, text_of
from llsflow.agents.extraction import Extraction
from llsflow.agents.passages import Passage
from llsflow.errors import ConfigError, DataError, Mistake
from llsflow.schema.agents import Document
from llsflow.schema.inference import URL
from llsflow.schema.server import FetchConfig

TEXTS = ("application/json", "application/yaml", "application/x-yaml")
"""MIME types that are text, beside text/*."""
HTML = ("text/html", "application/xhtml+xml")
PDF = "application/pdf"
MOST_CHARACTERS = 10_000_000
"""Of all documents of a turn; server.agents.documents_characters says which go to the model whole."""
MOST_BYTES = 64_000_000
"""Of one document, before it is read to text."""
_DATA_URL = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^\s;,]*)*(?:;base64)?,")
# Python's codecs for other things than files; one of them takes a time that grows with the square of the length
_NO_CHARSETS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
_BORDER = re.compile(r"\[\s*(?:end\s+of\s+)?(?:passage|document)", re.IGNORECASE)


def read_documents(documents: Sequence[Document], fetching: FetchConfig) -> list[str]:
    """Return the text of each document. It may take a minute, most of it in another process.

    Raises:
        ConfigError: every document that cannot be read, and why, at once.
    """
    texts: list[str] = []
    mistakes: list[Mistake] = []
    characters = 0
    extraction = Extraction(MOST_CHARACTERS)
    for number, document in enumerate(documents):
        try:
            text = _read(document, fetching, extraction)
        except DataError as error:
            mistakes += [Mistake(f"documents.{number}.content", str(mistake)) for mistake in error.mistakes]
        except ValueError as error:
            mistakes.append(Mistake(f"documents.{number}", str(error)))
        else:
            characters += len(text)
            if characters <= MOST_CHARACTERS:
                texts.append(text)
    if characters > MOST_CHARACTERS:
        message = f"are {characters:,} characters of text, allowed: {MOST_CHARACTERS:,}; send the parts that matter"
        mistakes.append(Mistake("documents", message))
    if mistakes:
        raise ConfigError(mistakes)
    return texts


def inserted(texts: Sequence[str]) -> str:
    """Return whole documents as they stand behind the user's message.

    No text can hold a border: where one holds what looks like it, all borders have a mark that stands in none of them.
    """
    mark = _mark(texts)
    return "".join(
        f"\n\n[document {number}{mark}]\n{text}\n[end of document {number}{mark}]"
        for number, text in enumerate(texts, start=1)
    )


def inserted_passages(passages: Sequence[Passage]) -> str:
    """Return passages as they stand behind the user's message, with borders as those of `inserted`."""
    mark = _mark([passage.text for passage in passages])
    return "".join(
        f"\n\n[document {one.document}, passage {one.place} of {one.of}{mark}]\n{one.text}\n[end of passage{mark}]"
        for one in passages
    )


def _mark(texts: Sequence[str]) -> str:
    """Return what tells borders from texts that hold the like: nothing, or a number of hexadecimal digits.

    It depends on the texts alone: in later turns the borders are the same.

    Source: Hines et al. 2024, "Defending Against Indirect Prompt Injection Attacks With Spotlighting", delimiting.
    """
    if not any(map(_BORDER.search, texts)):
        return ""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
    while any((mark := digest.hexdigest()[:8]) in text for text in texts):
        digest.update(b"again")
    return f" {mark}"


def _read(document: Document, fetching: FetchConfig, extraction: Extraction) -> str:
    kind = document.mime_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in (*TEXTS, *HTML, PDF)):
        raise ValueError(f"mime_type is {kind!r}, allowed: text/…, {', '.join((*TEXTS, HTML[1], PDF))}")
    content = _content(document, fetching)
    if kind == PDF:
        if isinstance(content, str):
            raise ValueError("content is no PDF: send data:application/pdf;base64,DATA, or its URL as uri")
        return extraction.text("pdf", content)
    text = content if isinstance(content, str) else _decoded(content, document.mime_type)
    return extraction.text("html", text.encode("utf-8", "surrogatepass")) if kind in HTML else text


def _content(document: Document, fetching: FetchConfig) -> str | bytes:
    """Return what a document holds: text as it was sent, or the bytes behind a URL."""
    if isinstance(document.content, URL):
        return _bytes_at(document.content.uri, fetching)
    if has_images(document.content):
        raise ValueError("content holds an image: send it in a message, to a model that sees")
    text = text_of(document.content)
    # YAML and logs may begin with the word too
    return _bytes_at(text, fetching) if _DATA_URL.match(text) else text


def _bytes_at(uri: str, fetching: FetchConfig) -> bytes:
    """Return what a URL holds: the data in it, or what is fetched by the server's rules.

    Source: RFC 2397 for data URLs.
    """
    if uri.startswith("data:"):
        return _within(_data(uri))
    from llsflow.data.fetch import fetch

    with fetch(uri, fetching) as fetched:
        return _within(fetched.file.read(MOST_BYTES + 1), fetched.file.seek(0, os.SEEK_END))


def _data(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("is no data URL: write data:MIME;base64,DATA")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except binascii.Error as error:
        raise ValueError(f"the data URL is no base64: {error}") from None


def _within(content: bytes, size: int = 0) -> bytes:
    if len(content) > MOST_BYTES:
        raise ValueError(f"is {max(size, len(content)):,} bytes, allowed: {MOST_BYTES:,}; send the parts that matter")
    return content


def _decoded(content: bytes, mime_type: str) -> str:
    """Return bytes as text, in the charset that the MIME type names, or UTF-8."""
    header = Message()
    header["content-type"] = mime_type
    named = header.get_content_charset("utf-8")
    try:
        charset = codecs.lookup(named).name
        if charset in _NO_CHARSETS:
            raise LookupError
        return content.decode("utf-8-sig" if charset == "utf-8" else charset)
    except LookupError:
        reason = f"mime_type names the charset {named!r}, allowed: utf-8, latin-1 and others that Python knows"
    except UnicodeError:
        reason = f"content is no text in {named.upper()}: name its charset in mime_type, as text/plain; charset=latin-1"
    raise ValueError(reason)

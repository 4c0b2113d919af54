"""PDFs made by hand: pages of given drawing commands, and the table of where each object lies."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence


def pdf(pages: Sequence[bytes], *, packed: bool = False, times: int = 1) -> bytes:
    """Return a PDF of some pages' commands; `times`: each page so often, without its commands again."""
    count = len(pages) * times
    kids = b" ".join(b"%d 0 R" % (4 + place) for place in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    fonts = b"/Resources << /Font << /F1 3 0 R >> >>"
    for place in range(count):
        content = 4 + count + place % len(pages)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s /Contents %d 0 R >>" % (fonts, content)
        )
    return _file(objects + [_stream(page, packed=packed) for page in pages])


def line(text: bytes) -> bytes:
    """Return the commands that write a line."""
    return b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text


def encrypted(content: bytes, password: str, algorithm: str = "AES-256") -> bytes:
    """Return a PDF that needs a password; an empty one: only for changes."""
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt(password, "of the owner", algorithm=algorithm)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def data_url(content: bytes, mime_type: str = "application/pdf") -> str:
    """Return bytes as a URL that holds them."""
    return f"data:{mime_type};base64,{base64.b64encode(content).decode()}"


def _stream(content: bytes, *, packed: bool) -> bytes:
    body = zlib.compress(content) if packed else content
    return b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(body), b" /Filter /FlateDecode" * packed, body)


def _file(objects: Sequence[bytes]) -> bytes:
    """Source: ISO 32000-1:2008, 7.5, file structure."""
    found = b"%PDF-1.7\n"
    starts: list[int] = []
    for number, one in enumerate(objects, start=1):
        starts.append(len(found))
        found += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    entries = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (entries, len(found))
    return found + b"xref\n0 %d\n0000000000 65535 f \n%s%s" % (entries, table, trailer)

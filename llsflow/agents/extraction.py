"""The text of PDF and HTML files, got in a process of its own: a file made to fill time or memory ends with it.

The process is this file and imports nothing of llsflow. pypdf bounds what one stream unpacks to; what a whole file
costs, only the system can bound.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

MOST_SECONDS = 60.0
"""Longest reading of all documents of a turn."""
MOST_PAGES = 3_000
"""Of a PDF."""
MOST_MEMORY_BYTES = 2 * 2**30
"""Of the process, for one document."""
AT_ONCE = 2
"""Files that are read at the same time; others wait."""
_REFUSED = 3
_room = threading.BoundedSemaphore(AT_ONCE)


class Extraction:
    """Reads the documents of a turn, which share its time."""

    def __init__(
        self, most_characters: int, seconds: float = MOST_SECONDS, memory_bytes: int = MOST_MEMORY_BYTES
    ) -> None:
        self.most_characters, self.seconds, self.memory_bytes = most_characters, seconds, memory_bytes
        self._left = seconds

    def text(self, kind: str, content: bytes) -> str:
        """Return the text of a file: `pdf`, or `html` in UTF-8.

        Raises:
            ValueError: it cannot be read, or not within the bounds, and why.
        """
        with _room:
            begun = time.monotonic()
            bounds = (self.most_characters, max(self._left, 0.0), self.memory_bytes)
            try:
                done = subprocess.run(
                    # by its path, without the working directory among the places of modules
                    [sys.executable, "-P", __file__, kind, *map(str, bounds)],
                    input=content,
                    capture_output=True,
                    check=False,
                    timeout=bounds[1],
                    start_new_session=True,  # Ctrl-C in the terminal is for the server
                )
            except subprocess.TimeoutExpired:
                reason = (
                    f"the documents take longer than {self.seconds:g} s to read: send fewer, or the pages that matter"
                )
                raise ValueError(reason) from None
            finally:
                self._left -= time.monotonic() - begun
        told = done.stdout.decode("utf-8", "surrogatepass")
        if done.returncode == 0:
            return told
        # killed in the middle, it has told nothing
        raise ValueError(told if done.returncode == _REFUSED else TOO_MUCH)


class RefusedError(Exception):
    """A file that is not read, and why."""


def text_of_pdf(content: bytes, most_characters: int) -> str:
    """Return the text of a PDF, a blank line between two pages.

    Raises:
        RefusedError: it is encrypted, has no text, or more than is allowed.
    """
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(content))
    # many a file only forbids changes, and opens without a password
    if reader.is_encrypted and not reader.decrypt(""):
        raise RefusedError("the PDF is encrypted: send it without its password")
    pages = len(reader.pages)
    if pages > MOST_PAGES:
        raise RefusedError(f"the PDF has {pages:,} pages, allowed: {MOST_PAGES:,}; send those that matter")
    texts: list[str] = []
    left = most_characters
    for page in reader.pages:
        if text := page.extract_text().strip():
            texts.append(text)
            left -= len(text)
        if left < 0:
            raise RefusedError(f"the PDF has more than {most_characters:,} characters: send the pages that matter")
    if not texts:
        raise RefusedError("the PDF has no text, as scans have none: send what OCR reads from it")
    # fonts may name halves of characters, which no text can carry
    return "\n\n".join(texts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text_of_html(content: bytes, _: int) -> str:
    """Return what a reader sees of a page: a line for each block, and one for each row of a table."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    # titles of their own line, which the library runs into what follows
    page = _TITLED.sub(r"\g<0><br>", content.decode("utf-8", "replace"))
    tree = HTMLTree.parse(page)
    document = tree.document
    if document is None:
        return ""
    for unseen in document.query_selector_all('[hidden], [style*="display:none"], [style*="display: none"]'):
        unseen.decompose()
    for raised in document.query_selector_all("sup"):
        power = (raised.text or "").strip()
        if raised.query_selector("a"):
            raised.text = f" [{power.strip('[]')}]"  # a note, and no power
        elif _POWER.fullmatch(power):  # 10<sup>6</sup> is not 106
            raised.text = f"^{power}" if _ONE.fullmatch(power) else f"^({power})"
    for formula in reversed(document.query_selector_all("msup, mfrac")):
        parts = [(child.text or "").strip() for child in formula.child_nodes if (child.text or "").strip()]
        if len(parts) == 2:
            formula.text = f" {parts[0]}{'^' if formula.tag == 'msup' else '/'}{parts[1]} "
    for cell in document.query_selector_all("td + td, th + th, th + td, td:first-child, th:first-child"):
        if not cell.query_selector("table"):
            cell.text = " ".join(extract_plain_text(cell.html, preserve_formatting=True).split())
    text = extract_plain_text(
        tree, preserve_formatting=True, list_bullets=True, alt_texts=True, links=False, form_fields=True
    )
    title = tree.title.strip() if tree.title else ""
    # a table may begin with an empty cell
    return "\n".join(part for part in (title, text.replace("\t\t", "\t").strip(" \r\n").rstrip()) if part)


_TITLED = re.compile(r"</(?:summary|legend)\s*>", re.IGNORECASE)
_TERM = r"(?:\d+(?:[.,]\d+)?[a-z]?|[a-z])"
_ONE = re.compile(r"[+\-\u2212]?(?:\d+(?:[.,]\d+)?|[a-z])")
_POWER = re.compile(rf"[+\-\u2212]?{_TERM}(?:[+\-\u2212*/]{_TERM})*")
"""Of a number or of a letter, as 6, 0.5, 2n or n-1; no ending of a word, as in 1st."""


READERS: dict[str, Callable[[bytes, int], str]] = {"pdf": text_of_pdf, "html": text_of_html}


TOO_MUCH = "its reading was ended, as it takes too much memory: send a smaller part"


def _main(kind: str, most_characters: str, seconds: str, memory_bytes: str) -> int:
    """Write the text, or why there is none."""
    _limit(int(float(seconds)) + 1, int(memory_bytes))
    status = 0
    try:
        told = READERS[kind](sys.stdin.buffer.read(), int(most_characters))
    except RefusedError as error:
        told, status = str(error), _REFUSED
    except MemoryError:
        told, status = TOO_MUCH, _REFUSED
    except Exception as error:
        # whatever libraries raise over bytes that are not what they should be
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        told, status = f"the {kind.upper()} cannot be read: {words}; it may be broken: save it anew", _REFUSED
    sys.stdout.buffer.write(told.encode("utf-8", "surrogatepass"))
    return status


def _limit(seconds: int, memory_bytes: int) -> None:
    """Bound this process, also where the one that waits for it is gone."""
    import resource

    # macOS knows the limit of memory and refuses it: there that of time alone holds
    for limit, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

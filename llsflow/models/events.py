"""The server-sent events of an endpoint, and what its bodies tell of a failure.

Source: html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

DONE = object()
"""Stands for the protocol's `[DONE]`."""

ANSWERS = ("choices", "results", "data")
"""Keys of bodies that answer."""

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Reads the JSON of events out of bytes, as they come.

    An event is given as soon as its JSON is whole, also where the blank line behind it is missing, and where the body
    ends without a newline.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        """Of data that is no JSON yet."""
        self._kind = b""

    def feed(self, part: bytes) -> Iterator[Any]:
        """Yield the events that further bytes end.

        Raises:
            ValueError: one is no JSON.
        """
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))

    def end(self) -> Iterator[Any]:
        """Yield the events that the end of the body ends.

        Raises:
            ValueError: one is no JSON.
        """
        rest, self._rest = self._rest, b""
        for line in (rest.removesuffix(b"\r"), b""):
            yield from self._line(line)

    def _line(self, line: bytes) -> Iterator[Any]:
        if b"\r" in line:  # lines may end in it alone; in JSON it is written \r
            for one in line.split(b"\r"):
                yield from self._line(one)
            return
        line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            yield from self._data(line[len(b"data:") :].strip())
        elif not line:
            yield from self._dispatched()
        elif line.startswith((b"{", b"[")):  # JSON without `data:`, in which some servers tell failures
            yield from self._data(line)
        elif line.startswith(b"error:"):  # llama.cpp
            yield {"error": json.loads(line[len(b"error:") :])}
        elif line.startswith(b"event:"):
            self._kind = line[len(b"event:") :].strip()

    def _data(self, value: bytes) -> Iterator[Any]:
        if self._lines:
            self._lines.append(value)
        elif value == b"[DONE]":
            yield DONE
        elif value:
            try:
                found = json.loads(value)
            except ValueError:
                self._lines.append(value)
            else:
                yield self._named(found)

    def _dispatched(self) -> Iterator[Any]:
        if self._lines:
            lines, self._lines = self._lines, []
            yield self._named(json.loads(b"\n".join(lines)))
        self._kind = b""

    def _named(self, found: Any) -> Any:
        if self._kind == b"error" and not (isinstance(found, dict) and found.get("error")):
            return {"error": found}
        return found


def is_last(event: Any) -> bool:
    """Return whether an event says why the answer ended: nothing but counts comes behind it."""
    try:
        return any(choice.get("finish_reason") for choice in event.get("choices") or ())
    except (AttributeError, TypeError):
        return False


class Failure(NamedTuple):
    """What a body tells of a failure."""

    message: str
    code: object = None
    status: int | None = None
    """The HTTP status that it names."""


def failure_of(body: Any) -> Failure | None:
    """Return what a body tells of a failure; None: it tells of none.

    Source: the errors of OpenAI, Ollama (a text), Gemini (within a list), vLLM (object: error), FastAPI (detail),
    Cloudflare (errors).
    """
    if isinstance(body, list) and len(body) == 1:
        return failure_of(body[0])
    if not isinstance(body, Mapping):
        return None
    if error := body.get("error"):
        return _failure(error, body)
    if any(body.get(key) is not None for key in ANSWERS):
        return None
    if errors := body.get("errors"):
        return _failure(errors[0] if isinstance(errors, list) else errors, body)
    told = body.get("message") or body.get("detail")
    return _failure(told, body) if told else None


def _failure(error: Any, body: Mapping[str, Any]) -> Failure:
    about = error if isinstance(error, Mapping) else body
    code = about.get("code")
    named = [str(about.get(key)) for key in ("code", "status", "status_code")]
    status = next((int(one) for one in named if one.isdecimal() and 400 <= int(one) < 600), None)
    return Failure(_words(error), code, status)


def _words(error: Any) -> str:
    """Return an error in words; one without a message is told as it is."""
    if isinstance(error, str):
        return error
    for key in ("message", "msg", "detail"):
        if isinstance(error, Mapping) and isinstance(found := error.get(key), str) and found:
            return found
    return json.dumps(error, ensure_ascii=False)

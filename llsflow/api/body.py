"""What a request brings: its JSON body and its query, read as one record.

Clients send one JSON object with a member for each parameter. The specification also knows parameters in the query,
and for some operations the one record that matters as the bare body. All of them become the same record here.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, NoReturn, TypeVar
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from llsflow.api.incoming import Incoming
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.base import Record
from llsflow.schema.kinds import Kind, mistake_in_words, nearest, untagged

R = TypeVar("R", bound=Record)

SMALL_BYTES = 64 << 10
"""Up to here a body is parsed faster than it is handed to another thread."""

MOST_MISTAKES = 20
"""Told in one answer."""

NEVER_USED = ("args", "kwargs")
"""The specification asks for them in the query of some operations, where they mean nothing."""

IGNORED = "llsflow.ignored"
"""Key of a request's scope: the fields that nothing read."""

INCOMING = "llsflow.incoming"
"""Key of a request's scope: its body, to be discarded at its end."""

MOST_IGNORED = 20
"""Told in the header."""


@dataclass(frozen=True)
class Taken(Generic[R]):
    """A checked record, and what else the request brought."""

    record: R
    ignored: tuple[str, ...] = ()
    """Fields that nothing reads, as dotted paths; `?name` for those of the query."""


@dataclass(frozen=True)
class Body:
    """A request's bytes and query; can be sent to another process."""

    data: bytes = b""
    query: Mapping[str, list[str]] = field(default_factory=dict)
    path: Path | None = None
    """Where the bytes are, when they are many."""

    @property
    def is_large(self) -> bool:
        """Whether reading it takes so long that others would notice."""
        return self.path is not None or len(self.data) > SMALL_BYTES

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The members of the JSON object; none where there is no body.

        Raises:
            ConfigError: it is no JSON object.
        """
        return _parsed(self.data if self.path is None else self.path.read_bytes())

    def is_bare(self, record: type[Record], bare: str) -> bool:
        """Return whether the body is not `record` but what its field `bare` holds."""
        inside = Kind((record,)).keys()[bare].keys()
        return any(key in inside for key in self.values) and not any(key in record.model_fields for key in self.values)

    def take(self, record: type[R], bare: str | None = None, **defaults: Any) -> Taken[R]:
        """Return the record that the request describes.

        Args:
            record: what the operation takes.
            bare: its field that may also be the whole body.
            defaults: what fields are where a bare body cannot name them.

        Raises:
            ConfigError: every mistake at once: field, what was found, what is allowed.
        """
        kind = Kind((record,))
        is_bare = bare is not None and self.is_bare(record, bare)
        given = {bare: self.values} if bare and is_bare else dict(self.values)
        ignored = list(_unknown(given, kind))
        for name, texts in self.query.items():
            if name in record.model_fields and name not in given:
                given[name] = _read_text(texts, kind.keys()[name])
            elif name not in NEVER_USED:
                ignored.append(f"?{name}")
        if is_bare:
            given = {**defaults, **given}
        prefix = f"{bare}." if is_bare else ""
        try:
            checked = record.model_validate(given, extra="ignore")
        except ValidationError as error:
            _refuse(error, kind, [path.removeprefix(prefix) for path in ignored], prefix)
        return Taken(checked, tuple(path.removeprefix(prefix) for path in ignored))


async def whole_body(request: Request) -> Body:
    """Return what a request brings, unread; a dependency of operations that may take many rows.

    Where it lies in a file, the door removes that once the request is answered.

    Raises:
        HTTPError: the body is too large, or no JSON by its own account.
    """
    query: dict[str, list[str]] = {}
    for name, text in request.query_params.multi_items():
        query.setdefault(name, []).append(text)
    incoming = request.scope[INCOMING] = Incoming()
    await incoming.receive(request, request.app.state.services.server.max_body_bytes)
    return Body(incoming.data, query, incoming.path)


def taken(record: type[R], bare: str | None = None) -> Callable[[Request, Body], Awaitable[R]]:
    """Return the dependency that reads a request as `record`; see `Body.take`."""

    async def dependency(request: Request, body: Annotated[Body, Depends(whole_body)]) -> R:
        if body.is_large:
            found = await run_in_threadpool(body.take, record, bare)
        else:
            found = body.take(record, bare)
        ignore(request, found.ignored)
        return found.record

    return dependency


def ignore(request: Request, fields: tuple[str, ...]) -> None:
    """Note the fields that nothing read, for the header and the log."""
    if fields:
        request.scope[IGNORED] = fields


def ignored_header(fields: tuple[str, ...]) -> str:
    """Return the fields as the value of `X-Ignored-Fields`: short, and nothing but ASCII."""
    shown = [quote(path[:100], safe="?._-[]/:", errors="replace") or '""' for path in fields[:MOST_IGNORED]]
    more = [f"and {len(fields) - MOST_IGNORED} more"] if len(fields) > MOST_IGNORED else []
    return ", ".join([*shown, *more])


def _parsed(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_int=_integer, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _refused(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _refused(f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _refused("is nested too deeply") from None
    except ValueError as error:  # of our own readers of numbers
        raise _refused(f"is not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        words = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        raise _refused(f"found {words.get(type(value), 'a number')}, allowed: an object with a member for each field")
    return value


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"an integer of {len(digits)} digits: write it as a text") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _refused(message: str) -> ConfigError:
    return ConfigError([Mistake("body", message)])


def _read_text(texts: list[str], kind: Kind) -> Any:
    """Return the value that the text of a query stands for; the text itself where it stands for none."""
    if kind.items is not None:
        if len(texts) == 1 and texts[0].lstrip().startswith("["):
            return _json_or_text(texts[0])
        return [part for text in texts for part in text.split(",")]
    text = texts[-1]
    return text if kind.wants_text else _json_or_text(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _unknown(value: Any, kind: Kind, path: str = "") -> Iterator[str]:
    """Yield the dotted path of every field that the schema does not know."""
    if isinstance(value, dict):
        keys = _fitting(value, kind).keys()
        inside = kind.mapping
        for key, item in value.items():
            if key in keys:
                yield from _unknown(item, keys[key], f"{path}{key}.")
            elif inside is not None:
                if inside.records:
                    yield from _unknown(item, inside, f"{path}{key}.")
            elif keys:
                yield f"{path}{key}"
    elif isinstance(value, list) and (items := kind.items) is not None and items.records:
        for index, item in enumerate(value):
            if isinstance(item, dict | list):  # of a thousand texts none has a field
                yield from _unknown(item, items, f"{path}{index}.")


def _fitting(value: Mapping[str, Any], kind: Kind) -> Kind:
    """Return the kind of the one record of a union that `value` says to be."""
    if len(kind.records) > 1:
        for record in kind.records:
            tags = Kind((record,)).keys().get("type")
            if tags and value.get("type") in tags.choices:
                return Kind((record,))
    return kind


def _refuse(error: ValidationError, kind: Kind, ignored: list[str], prefix: str) -> NoReturn:
    mistakes: list[Mistake] = []
    for details in error.errors(include_url=False):
        loc, _ = untagged(details["loc"], kind)
        if details["type"].startswith("union_tag"):
            loc = (*loc, "type")
        where = ".".join(map(str, loc)).removeprefix(prefix)
        message = mistake_in_words(details, _at(kind, loc))
        if details["type"] == "missing":
            message += _misspelt(where, ignored)
        mistakes.append(Mistake(where or "body", message))
    more = len(mistakes) - MOST_MISTAKES
    told = mistakes[:MOST_MISTAKES]
    raise ConfigError([*told, Mistake("", f"and {more} more")] if more > 0 else told) from None


def _misspelt(where: str, ignored: list[str]) -> str:
    parent, _, name = where.rpartition(".")
    siblings = [path.rpartition(".")[2] for path in ignored if path.rpartition(".")[0] == parent]
    close = nearest(name, siblings)
    return f"; the unknown field {close[0]!r} looks like it" if close else ""


def _at(kind: Kind, loc: tuple[str | int, ...]) -> Kind | None:
    found: Kind | None = kind
    for part in loc:
        found = found.child(part) if found else None
    return found

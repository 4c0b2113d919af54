"""Where the rows of a registration come from, and which places are open to it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import unquote_to_bytes

from llsflow import home
from llsflow.data.files import READERS, NumberedRow, kind_of, read_stream
from llsflow.errors import DataError, Mistake
from llsflow.schema.datasets import RowsDataSource, URIDataSource
from llsflow.schema.server import ServerConfig

ALLOWED = (
    "https://…, lsfs://… (below LLSFLOW_HOME), data:…, huggingface://datasets/…?split=…, "
    "or a path in a folder of server.data_roots"
)
MEDIA_TYPES = {
    "text/csv": ".csv",
    "application/csv": ".csv",
    "csv": ".csv",
    "application/json": ".json",
    "text/json": ".json",
    "json": ".json",
    "application/jsonl": ".jsonl",
    "application/jsonlines": ".jsonl",
    "application/json-lines": ".jsonl",
    "application/x-jsonlines": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/ndjson": ".jsonl",
    "text/jsonl": ".jsonl",
    "jsonl": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-parquet": ".parquet",
    "parquet": ".parquet",
}
"""Kind of file by content type; the short ones are for data: only."""

_KINDS = ", ".join(READERS) + ", each with .gz"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_REFUSED = {
    "file": "files of the server are not open to registration as file://",
    "conf": "what stands in the configuration is in the catalogue already, under its own name",
    "store": "its rows are registered already",
}


@dataclass(frozen=True)
class OpenSource:
    """Rows to be read once."""

    rows: Iterator[NumberedRow]
    name: str = ""
    """How messages call it; empty: the rows were given inline."""
    max_bytes: int | None = None
    """Most bytes of rows; None: no limit beside that of the request."""

    def where(self, number: int) -> str:
        """Return how messages call a row."""
        return f"{self.name}:{number}" if self.name else f"row {number}"


Opener = Callable[[str, ServerConfig], AbstractContextManager[tuple[IO[bytes], str, str]]]
"""Address -> (file, kind, how messages call it)."""


@contextmanager
def open_source(
    source: URIDataSource | RowsDataSource, server: ServerConfig, problems: list[Mistake]
) -> Iterator[OpenSource]:
    """Give the rows of a source; those that cannot be read go to `problems`.

    Raises:
        DataError: the address is not open to registration, there is nothing, or it cannot be read.
    """
    if isinstance(source, RowsDataSource):
        yield OpenSource(iter(enumerate(source.rows, 1)))
        return
    limit = server.fetch.max_bytes
    match = _SCHEME.match(source.uri)
    scheme = match.group(1).lower() if match else ""
    if scheme == "huggingface":
        from llsflow.data.hub import hub_rows

        rows = hub_rows(source.uri, problems, server.fetch.timeout_seconds)
        yield OpenSource(rows, source.uri, limit)
    elif scheme in OPENERS:
        with OPENERS[scheme](source.uri, server) as (file, kind, name):
            yield OpenSource(read_stream(file, kind, name, problems, limit), name, limit)
    else:
        why = _REFUSED.get(scheme, f"{scheme}: is not among the addresses that can be read")
        raise DataError([Mistake("source.uri", f"{source.uri[:80]!r} is refused: {why}; allowed are {ALLOWED}")])


@contextmanager
def _web(uri: str, server: ServerConfig) -> Iterator[tuple[IO[bytes], str, str]]:
    from llsflow.data.fetch import fetch

    with fetch(uri, server.fetch) as fetched:
        kind = MEDIA_TYPES.get(fetched.content_type) if "/" in fetched.content_type else None
        with contextlib.suppress(DataError):
            kind = kind_of(fetched.file_name, fetched.name)
        if kind is None:
            found = fetched.content_type or "none"
            message = f"neither its name nor its content type ({found}) says what it is: allowed are {_KINDS}"
            raise DataError([Mistake(fetched.name, message)])
        yield fetched.file, kind, fetched.name


@contextmanager
def _data(uri: str, _: ServerConfig) -> Iterator[tuple[IO[bytes], str, str]]:
    head, comma, body = uri.partition(",")
    media_type, *parameters = head.partition(":")[2].split(";")
    name = head[:60]
    kind = MEDIA_TYPES.get(media_type.strip().lower())
    if not comma or kind is None:
        short = ", ".join(kind for kind in MEDIA_TYPES if "/" not in kind)
        message = f"is not understood: write data:TYPE,… or data:TYPE;base64,… with a TYPE of text/csv, {short}"
        raise DataError([Mistake(name, message)])
    data = unquote_to_bytes(body)
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as error:
            raise DataError([Mistake(name, f"is not base64: {error}")]) from None
    yield io.BytesIO(data), kind, name


@contextmanager
def _lsfs(uri: str, _: ServerConfig) -> Iterator[tuple[IO[bytes], str, str]]:
    root = home.home().resolve()
    path = _below(root, uri.partition("://")[2].lstrip("/"))
    if path is None:
        raise DataError([Mistake(uri, "leaves LLSFLOW_HOME: lsfs:// names files below it")])
    with _opened(path, uri) as file:
        yield file, kind_of(path.name, uri), uri


@contextmanager
def _local(uri: str, server: ServerConfig) -> Iterator[tuple[IO[bytes], str, str]]:
    roots = [Path(folder).expanduser().resolve() for folder in server.data_roots]
    inside = [path for root in roots if (path := _below(root, uri))]
    if not inside:
        found = "is in none of these folders" if roots else "server.data_roots names no folder"
        message = f"a path is read from the folders of server.data_roots only: {found}"
        raise DataError([Mistake(uri, message)])
    path = next((path for path in inside if path.is_file()), inside[0])
    with _opened(path, uri) as file:
        yield file, kind_of(path.name, uri), uri


def _below(root: Path, name: str) -> Path | None:
    """Return the file of that name with every link followed; None: it is not below `root`."""
    try:
        path = (root / name).resolve()
    except (ValueError, OSError, RuntimeError):  # a NUL in it, a name too long, links in a circle
        return None
    return path if path.is_relative_to(root) else None


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise DataError(
            [Mistake(name, "is a folder: name one file in it" if path.is_dir() else "there is no such file")]
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError([Mistake(name, f"cannot be read: {error.strerror}")]) from None
    with file:
        yield file


OPENERS: dict[str, Opener] = {"https": _web, "http": _web, "data": _data, "lsfs": _lsfs, "": _local}
"""How each kind of address is opened, by scheme; huggingface:// is no file."""

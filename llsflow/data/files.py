"""Files of rows: JSON Lines, JSON, CSV and Parquet, each optionally gzipped, read as a stream."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from llsflow import home
from llsflow.data.parts import DECODER
from llsflow.data.values import BadRow, plain_row, without_filled_in
from llsflow.errors import DataError, Mistake

NumberedRow = tuple[int, dict[str, Any]]
"""The row and its number: the line in a text file, else the position from 1."""

Found = Iterator[tuple[int, dict[str, Any] | BadRow]]

MAX_ROW_BYTES = 64 << 20
"""A row over this is refused: one line without an end must not fill the memory."""

_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UNREADABLE = (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError, OSError, csv.Error)


class TooLargeError(Exception):
    """What is unpacked is over the limit."""


def read_rows(path: Path, problems: list[Mistake]) -> Iterator[NumberedRow]:
    """Yield the rows of a file; a row that cannot be read is added to `problems` and left out.

    Raises:
        DataError: the file's kind is not known, or the file as a whole cannot be read.
    """
    kind = kind_of(path.name, str(path))
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError([Mistake(str(path), f"cannot be read: {error}")]) from error
    with file:
        yield from read_stream(file, kind, str(path), problems)


def read_stream(
    file: IO[bytes], kind: str, name: str, problems: list[Mistake], max_bytes: int | None = None
) -> Iterator[NumberedRow]:
    """Yield the rows of an open file of a known kind; `name` is how messages call it.

    Whether it is gzipped is seen from its first bytes; `max_bytes` bounds what is unpacked.

    Raises:
        DataError: the file as a whole cannot be read, or it is larger.
    """
    try:
        for number, row in READERS[kind](_unpacked(file, name), max_bytes):
            if isinstance(row, BadRow):
                problems.append(Mistake(f"{name}:{number}", str(row)))
            else:
                yield number, row
    except TooLargeError as error:
        raise DataError([Mistake(name, str(error))]) from error
    except _UNREADABLE as error:
        raise DataError([Mistake(name, f"cannot be read: {_words(error)}")]) from error


def _words(error: Exception) -> str:
    # an operating system's error names the path, which is not always the user's to see
    return error.strerror or "" if isinstance(error, OSError) and error.strerror else str(error)


def kind_of(file_name: str, shown: str) -> str:
    """Return the kind of a file by its suffix, one of READERS.

    Raises:
        DataError: the suffix is not known.
    """
    path = Path(file_name)
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    if suffix.lower() in READERS:
        return suffix.lower()
    known = ", ".join(READERS)
    message = f"files of kind {suffix or 'without a suffix'} are not known: allowed are {known}, each with .gz"
    raise DataError([Mistake(shown, message)])


def _unpacked(file: IO[bytes], name: str) -> IO[bytes]:
    start = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if start == _GZIP_MAGIC:
        return gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[return-value]
    if name.lower().endswith(".gz"):
        raise gzip.BadGzipFile("it is not gzipped, as .gz says")
    return file


def _chunks(file: IO[bytes], max_bytes: int | None) -> Iterator[bytes]:
    """Yield the file in pieces, without a byte order mark."""
    total = 0
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk.removeprefix(_BYTE_ORDER_MARK) if total == 0 else chunk
        total += len(chunk)
        if max_bytes is not None and total > max_bytes:
            raise TooLargeError(f"is over {max_bytes:,} bytes when unpacked: that is the limit")


def _lines(chunks: Iterator[bytes], split: Callable[[bytes], list[bytes]]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        pieces = split(rest + chunk)
        rest = pieces.pop()
        if len(rest) > MAX_ROW_BYTES:
            raise TooLargeError(f"holds a line of over {MAX_ROW_BYTES:,} bytes: that is the limit of a row")
        yield from pieces
    if rest:
        yield rest


def _jsonl(file: IO[bytes], max_bytes: int | None) -> Found:
    lines = _lines(_chunks(file, max_bytes), lambda data: data.split(b"\n"))
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            yield number, _json_row(text)


def _json_row(line: bytes) -> dict[str, Any] | BadRow:
    try:
        text = line.decode()
        row, end = DECODER.raw_decode(text)
    except UnicodeDecodeError as error:
        return BadRow(f"not UTF-8 text (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return BadRow("nested too deeply to be read")
    except ValueError as error:
        return BadRow(str(error))
    if end != len(text):
        return BadRow(f"not JSON: Extra data at column {end + 1}")
    if not isinstance(row, dict):
        return BadRow(f'a {type(row).__name__}, not an object: each line is one row like {{"prompt": …}}')
    return row


def _json(file: IO[bytes], max_bytes: int | None) -> Found:
    """Yield the items of a list, parsing one after the other: the file is never in memory as a whole."""
    text = _Text(_chunks(file, max_bytes))
    if text.peek() != "[":
        found = "nothing" if not text.peek() else f"{text.peek()!r}"
        yield text.line, BadRow(f"begins with {found}, not a list of rows: '[' (one row a line is .jsonl)")
        return
    text.skip()
    number = 0
    while text.peek() not in ("]", ""):
        number += 1
        try:
            row = text.value()
        except json.JSONDecodeError as error:
            yield text.line, BadRow(f"not JSON: {error.msg} (row {number})")
            return
        except (RecursionError, ValueError) as error:
            yield text.line, BadRow(f"{error or 'nested too deeply to be read'} (row {number})")
            return
        yield number, row if isinstance(row, dict) else BadRow(f"a {type(row).__name__}, not an object")
        if text.peek() != ",":
            break
        text.skip()
        if text.peek() == "]":
            yield text.line, BadRow(f"not JSON: a comma without a row after it (row {number})")
            return
    if text.peek() != "]":
        yield text.line, BadRow(f"not JSON: ',' or ']' is missing after row {number}")
        return
    text.skip()
    if text.peek():
        yield text.line, BadRow("not JSON: something follows the end of the list")


class _Text:
    """JSON text of which only the part around the next value is held."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = codecs.iterdecode(chunks, "utf-8")
        self.held = ""
        self.at = 0
        self.line = 1
        """Line of the next value, counted from 1."""

    def more(self, enough: int = 1) -> bool:
        """Hold at least `enough` more characters; False: there are none."""
        parts = [self.held[self.at :]]
        added = 0
        while added < enough and (chunk := next(self.chunks, "")):
            parts.append(chunk)
            added += len(chunk)
        self.held, self.at = "".join(parts), 0
        return added > 0

    def peek(self) -> str:
        """Return the next character that is not white space; empty: the text ends."""
        while True:
            while self.at < len(self.held) and self.held[self.at] in " \t\n\r":
                self.line += self.held[self.at] == "\n"
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                return ""

    def skip(self) -> None:
        """Go over one character."""
        self.at += 1

    def value(self) -> Any:
        """Return the next value; where it is cut off, with twice as much text in hand."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.held, self.at)
            except json.JSONDecodeError:
                held = len(self.held) - self.at
                if held > MAX_ROW_BYTES:
                    raise TooLargeError(
                        f"holds a row of over {MAX_ROW_BYTES:,} characters: that is the limit"
                    ) from None
                if not self.more(held):
                    raise
                continue
            if end == len(self.held) and not isinstance(value, dict | list | str) and self.more():
                continue  # a number may go on in the next piece
            self.line += self.held.count("\n", self.at, end)
            self.at = end
            return value


def _csv(file: IO[bytes], max_bytes: int | None) -> Found:
    # a cell may be a whole document; the limit is the module's own, and ours is that of a row
    csv.field_size_limit(MAX_ROW_BYTES)
    ends = _lines(_chunks(file, max_bytes), _split_keeping_ends)
    lines = csv.reader((line.decode() for line in ends), strict=True)
    header = next(lines, None)
    if header is None:
        return
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise csv.Error(f"the header names {', '.join(map(repr, twice))} more than once")
    for cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            yield lines.line_num, BadRow(f"{len(cells)} cells, but the header names {len(header)} columns")
            continue
        yield lines.line_num, dict(zip(header, cells, strict=True))


def _split_keeping_ends(data: bytes) -> list[bytes]:
    pieces = data.splitlines(keepends=True)
    # the last piece stays: a \r may be half of \r\n
    return pieces if pieces and not pieces[-1].endswith(b"\n") else [*pieces, b""]


def _parquet(file: IO[bytes], max_bytes: int | None) -> Found:
    import pyarrow
    import pyarrow.parquet

    if isinstance(file, gzip.GzipFile):
        with _spooled(_chunks(file, max_bytes)) as spool:
            yield from _parquet(spool, max_bytes)
        return
    try:
        table = pyarrow.parquet.ParquetFile(file)
        groups = (table.metadata.row_group(index) for index in range(table.metadata.num_row_groups))
        if max_bytes is not None and sum(group.total_byte_size for group in groups) > max_bytes:
            raise TooLargeError(f"is over {max_bytes:,} bytes when unpacked: that is the limit")
        number = 0
        for batch in table.iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield number, plain_row(without_filled_in(row))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise OSError(f"not a Parquet file: {error}") from error


def _spooled(chunks: Iterator[bytes]) -> IO[bytes]:
    """Return the bytes as a file without a name: Parquet is read from its end."""
    with home.storage_errors(home.home()):
        spool = unnamed_file()
        spool.writelines(chunks)
    spool.seek(0)
    return spool


def unnamed_file() -> IO[bytes]:
    """Return a new file under LLSFLOW_HOME that is gone with the process, however that ends."""
    home.home().mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=home.home())


READERS: dict[str, Callable[[IO[bytes], int | None], Found]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}

"""Files of rows: JSON Lines, JSON, CSV and Parquet, each optionally gzipped, read as a stream."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from llsflow.errors import DataError, Mistake

NumberedRow = tuple[int, dict[str, Any]]
"""The row and its number: the line in a text file, else the position from 1."""


class BadRow(ValueError):
    """A row that cannot be read."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def read_rows(path: Path, problems: list[Mistake]) -> Iterator[NumberedRow]:
    """Yield the rows of a file; a row that cannot be read is added to `problems` and left out.

    Raises:
        DataError: the file's kind is not known, or the file as a whole cannot be read.
    """
    reader = reader_for(path)
    try:
        for number, row in reader(path):
            if isinstance(row, BadRow):
                problems.append(Mistake(f"{path}:{row.number}", str(row)))
            else:
                yield number, row
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, OSError, csv.Error) as error:
        raise DataError([Mistake(str(path), f"cannot be read: {error}")]) from error


def reader_for(path: Path) -> Callable[[Path], Iterator[tuple[int, dict[str, Any] | BadRow]]]:
    """Return the reader of a file's suffix.

    Raises:
        DataError: the suffix is not known.
    """
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    try:
        return READERS[suffix.lower()]
    except KeyError:
        known = ", ".join(READERS)
        message = f"files of kind {suffix or 'without a suffix'} are not known: allowed are {known}, each with .gz"
        raise DataError([Mistake(str(path), message)]) from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _json_row(line.removeprefix(b"\xef\xbb\xbf"), number)


def _json_row(line: bytes, number: int) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        return BadRow(number, f"not UTF-8 text (byte {error.start + 1} of the line)")
    except json.JSONDecodeError as error:
        return BadRow(number, f"not JSON: {error.msg} at column {error.colno}")
    if not isinstance(row, dict):
        return BadRow(number, f'a {type(row).__name__}, not an object: each line is one row like {{"prompt": …}}')
    return row


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    with _open(path) as file:
        try:
            rows = json.load(file)
        except json.JSONDecodeError as error:
            yield error.lineno, BadRow(error.lineno, f"not JSON: {error.msg} at column {error.colno}")
            return
    if not isinstance(rows, list):
        yield 1, BadRow(1, f"a {type(rows).__name__}, not a list of rows (one row a line is .jsonl)")
        return
    for number, row in enumerate(rows, 1):
        yield (
            number,
            row if isinstance(row, dict) else BadRow(number, f"a {type(row).__name__}, not an object"),
        )


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    with _open(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        header = next(lines, None)
        if header is None:
            return
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                message = f"{len(cells)} cells, but the header names {len(header)} columns"
                yield lines.line_num, BadRow(lines.line_num, message)
                continue
            yield lines.line_num, dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _open(path) as file:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowInvalid as error:
        raise DataError([Mistake(str(path), f"not a Parquet file: {error}")]) from error


READERS: dict[str, Callable[[Path], Iterator[tuple[int, dict[str, Any] | BadRow]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}

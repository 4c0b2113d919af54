"""Rows in chunks: a page reads the chunks it touches, whatever the size of the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llsflow.store.rows import chain

MAX_ROWS = 1000
MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of a set."""

    first_row: int
    num_rows: int
    digest: str
    """Of all rows of the set up to the last of this chunk."""
    payload: bytes
    """The lines, joined by newlines."""


def pack(lines: Sequence[bytes], first_row: int, digest: str) -> list[Chunk]:
    """Return the lines as chunks that follow the rows of `digest`; a line above MAX_BYTES has a chunk of its own."""
    chunks: list[Chunk] = []
    start = size = 0
    for index, line in enumerate(lines):
        if index > start and (index - start == MAX_ROWS or size + len(line) > MAX_BYTES):
            chunks.append(_chunk(lines[start:index], first_row + start, chunks[-1].digest if chunks else digest))
            start, size = index, 0
        size += len(line) + 1
    if lines:
        chunks.append(_chunk(lines[start:], first_row + start, chunks[-1].digest if chunks else digest))
    return chunks


def _chunk(lines: Sequence[bytes], first_row: int, digest: str) -> Chunk:
    return Chunk(first_row, len(lines), chain(digest, lines), b"\n".join(lines))

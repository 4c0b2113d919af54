"""Registered data sets and their rows."""

from __future__ import annotations

import builtins
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from llsflow.errors import ConflictError, NotFoundError, StorageError, UnavailableError
from llsflow.store import owners
from llsflow.store.chunks import Chunk, pack
from llsflow.store.database import Database
from llsflow.store.imports import RowImport, chunk_values, find
from llsflow.store.records import Batch, Page, RowCounts, StoredDataset
from llsflow.store.rows import EMPTY, chain
from llsflow.store.tables import datasets, row_chunks, row_sets

SPAN_CHUNKS = 16
"""Chunks that one statement reads: a megabyte where no row is larger than a chunk."""
TAIL_ROWS = 64
TAIL_BYTES = 1 << 14
"""A last chunk below both is written anew together with what is appended: rows that come singly stay in few chunks."""
SWEEP_CHUNKS = 16
"""Chunks that one transaction removes."""


class Datasets:
    """The data sets of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closing = threading.Event()

    def get(self, dataset_id: str) -> StoredDataset | None:
        """Return the data set, or None."""
        with self._database.read() as connection:
            return find(connection, dataset_id)

    def list(self) -> Sequence[StoredDataset]:
        """Return every data set, in the order of registration."""
        with self._database.read() as connection:
            every = select(datasets).order_by(datasets.c.created_at, datasets.c.dataset_id)
            return [_record(row) for row in connection.execute(every).mappings()]

    def import_rows(self) -> RowImport:
        """Return a new import: rows that nobody sees until they are published."""
        return RowImport(self._database, self._remove_rows)

    def append(self, dataset_id: str, batch: Batch, created_at: datetime | None = None) -> RowCounts:
        """Add rows at the end, all or none, on disk when this returns, and return what all rows come to.

        Args:
            dataset_id: the data set.
            batch: the rows.
            created_at: of the registration that the rows were checked against; None: they fit any.

        Raises:
            NotFoundError: there is no such data set.
            ConflictError: it was registered anew since `created_at`.
        """
        with self._database.write() as connection:
            row = _locked(connection, dataset_id)
            if created_at not in (None, row["created_at"]):
                raise ConflictError(f"data set {dataset_id!r} was registered anew meanwhile: send the rows again")
            if not batch.lines:
                return RowCounts(row["num_rows"], row["characters"], row["turns"], row["digest"])
            # many rows make a chunk worth having, whatever they follow
            few = len(batch.lines) < TAIL_ROWS
            tail, before = _tail(connection, row) if few else (None, row["digest"])
            lines = [*tail.payload.split(b"\n"), *batch.lines] if tail else batch.lines
            chunks = pack(lines, tail.first_row if tail else row["num_rows"], before)
            if tail:
                connection.execute(_DELETE_CHUNK, {"key": row["set_key"], "first": tail.first_row})
            connection.execute(_INSERT_CHUNK, [chunk_values(row["set_key"], chunk) for chunk in chunks])
            grown = RowCounts(
                row["num_rows"] + len(batch.lines),
                row["characters"] + batch.characters,
                row["turns"] + batch.turns,
                chunks[-1].digest,
            )
            connection.execute(_GROW, {"id": dataset_id, **{f"new_{name}": v for name, v in vars(grown).items()}})
            return grown

    def page(self, dataset_id: str, start: int, limit: int, max_bytes: int | None = None) -> Page:
        """Return up to `limit` rows from index `start`; at least one where there is one, however large.

        Raises:
            NotFoundError: there is no such data set.
        """
        pieces: builtins.list[bytes] = []
        rows = size = 0
        with self._database.read() as connection:
            key, total = _place(connection, dataset_id)
            stop = min(start + limit, total)
            while start + rows < stop:
                for piece, count in _pieces(connection, dataset_id, key, start + rows, stop):
                    if max_bytes is not None and size + len(piece) > max_bytes:
                        some = _that_fit(piece, max_bytes - size, at_least=0 if rows else 1)
                        pieces += [b"\n".join(some)] if some else []
                        return Page(b"\n".join(pieces), rows + len(some), total)
                    pieces.append(piece)
                    rows += count
                    size += len(piece)
        return Page(b"\n".join(pieces), rows, total)

    def read(self, dataset_id: str, rows: int | None = None) -> Iterator[bytes]:
        """Return the lines of the first `rows` rows, or of those that are there now; no transaction stays open.

        Raises:
            NotFoundError: there is no such data set, or it is deleted while it is read.
        """
        with self._database.read() as connection:
            key, total = _place(connection, dataset_id)
        return self._read(dataset_id, key, total if rows is None else min(rows, total))

    def _read(self, dataset_id: str, key: int, stop: int) -> Iterator[bytes]:
        start = 0
        while start < stop:
            with self._database.read() as connection:
                lines = [*_lines(connection, dataset_id, key, start, stop)]
            yield from lines
            start += len(lines)

    def digest_at(self, dataset_id: str, rows: int) -> str | None:
        """Return the digest of the first `rows` rows; None where there are fewer.

        Raises:
            NotFoundError: there is no such data set.
        """
        with self._database.read() as connection:
            key, total = _place(connection, dataset_id)
            if rows == 0:
                return EMPTY
            if rows > total:
                return None
            # the chunk that holds the last of them, and the one before it
            found = connection.execute(_LAST, {"key": key, "before": rows}).all()
            whole = [chunk for chunk in found if chunk.first_row + chunk.num_rows <= rows]
            digest, done = (whole[0].digest, whole[0].first_row + whole[0].num_rows) if whole else (EMPTY, 0)
            if done < rows:
                digest = chain(digest, _lines(connection, dataset_id, key, done, rows))
        return digest

    def delete(self, dataset_id: str) -> bool:
        """Remove the data set and return whether it was there; its rows go after it, in short transactions."""
        with self._database.write() as connection:
            key = connection.execute(
                select(datasets.c.set_key).where(datasets.c.dataset_id == dataset_id).with_for_update()
            ).scalar()
            if key is None:
                return False
            connection.execute(delete(datasets).where(datasets.c.set_key == key))
            connection.execute(update(row_sets).where(row_sets.c.set_key == key).values(owner=""))
        self._remove_rows(key)
        return True

    def abandoned(self) -> Sequence[int]:
        """Return the keys of row sets that nobody will ever see: dropped, or of an import whose process died."""
        with self._database.read() as connection:
            found = connection.execute(select(row_sets).where(row_sets.c.owner.is_not(None))).all()
        return [row.set_key for row in found if not (row.owner and owners.lives(row.owner, row.started_at))]

    def sweep(self) -> None:
        """Remove the rows of every abandoned set; where the store fails meanwhile, the next sweep goes on."""
        with contextlib.suppress(StorageError, UnavailableError):
            for key in self.abandoned():
                self._remove_rows(key)

    def stop_sweeping(self) -> None:
        """Have a sweep stop after its current transaction; what is left is removed when the store is next opened."""
        self._closing.set()

    def _remove_rows(self, key: int) -> None:
        with self._database.write(durable=False) as connection:
            connection.execute(update(row_sets).where(row_sets.c.set_key == key).values(owner=""))
        while not self._closing.is_set():
            with self._database.write(durable=False) as connection:
                firsts = connection.execute(_SOME_CHUNKS, {"key": key}).scalars().all()
                if not firsts:
                    connection.execute(delete(row_sets).where(row_sets.c.set_key == key))
                    return
                connection.execute(
                    delete(row_chunks).where(row_chunks.c.set_key == key, row_chunks.c.first_row <= firsts[-1])
                )


def _record(row: Mapping[Any, Any]) -> StoredDataset:
    return StoredDataset(**{name: value for name, value in row.items() if name != "set_key"})


def _missing(dataset_id: str) -> NotFoundError:
    return NotFoundError(f"there is no data set {dataset_id!r}")


def _locked(connection: Connection, dataset_id: str) -> Mapping[Any, Any]:
    row = connection.execute(_LOCK, {"id": dataset_id}).mappings().first()
    if row is None:
        raise _missing(dataset_id)
    return row


# built once: building a statement takes longer than SQLite takes to run it
_GROWING = tuple(field.name for field in fields(RowCounts))
_LOCK = (
    select(*(datasets.c[name] for name in ("set_key", "created_at", *_GROWING)))
    .where(datasets.c.dataset_id == bindparam("id"))
    .with_for_update()
)
_GROW = (
    update(datasets)
    .where(datasets.c.dataset_id == bindparam("id"))
    .values({name: bindparam(f"new_{name}") for name in _GROWING})
)
_INSERT_CHUNK = insert(row_chunks)
_chunk = row_chunks.c
_of_set = _chunk.set_key == bindparam("key")
_PLACE = select(datasets.c.set_key, datasets.c.num_rows).where(datasets.c.dataset_id == bindparam("id"))
_inner = row_chunks.alias().c
_SPAN = (
    select(_chunk.first_row, _chunk.num_rows, _chunk.payload)
    .where(
        _of_set,
        _chunk.first_row
        >= select(func.max(_inner.first_row))
        .where(_inner.set_key == bindparam("key"), _inner.first_row <= bindparam("start"))
        .scalar_subquery(),
        _chunk.first_row < bindparam("stop"),
    )
    .order_by(_chunk.first_row)
    .limit(SPAN_CHUNKS)
)
_LAST = (
    select(_chunk.first_row, _chunk.num_rows, _chunk.digest, func.length(_chunk.payload).label("size"))
    .where(_of_set, _chunk.first_row < bindparam("before"))
    .order_by(_chunk.first_row.desc())
    .limit(2)
)
_PAYLOAD = select(_chunk.payload).where(_of_set, _chunk.first_row == bindparam("first"))
_DELETE_CHUNK = delete(row_chunks).where(_of_set, _chunk.first_row == bindparam("first"))
_SOME_CHUNKS = select(_chunk.first_row).where(_of_set).order_by(_chunk.first_row).limit(SWEEP_CHUNKS)


def _place(connection: Connection, dataset_id: str) -> tuple[int, int]:
    """Return the key of the data set's rows, and how many there are."""
    found = connection.execute(_PLACE, {"id": dataset_id}).first()
    if found is None:
        raise _missing(dataset_id)
    return found.set_key, found.num_rows


def _pieces(connection: Connection, dataset_id: str, key: int, start: int, stop: int) -> Iterator[tuple[bytes, int]]:
    """Give the first rows, and at least one, of those from `start` to before `stop`, by one statement.

    Each piece is the lines that one chunk has of them, joined by newlines, and how many they are: a chunk that is
    wanted whole is given as it is stored.
    """
    found = connection.execute(_SPAN, {"key": key, "start": start, "stop": stop})
    at = start
    for first, num_rows, payload in found:
        if at == first and first + num_rows <= stop:
            count = num_rows
            yield payload, count
        else:
            inside = payload.split(b"\n")[at - first : stop - first]
            count = len(inside)
            yield b"\n".join(inside), count
        at += count
    if at == start:  # deleted since its place was looked up
        raise _missing(dataset_id)


def _lines(connection: Connection, dataset_id: str, key: int, start: int, stop: int) -> Iterator[bytes]:
    """Give the same rows line by line."""
    for piece, _ in _pieces(connection, dataset_id, key, start, stop):
        yield from piece.split(b"\n")


def _that_fit(piece: bytes, room: int, at_least: int) -> list[bytes]:
    """Return the first lines that together have up to `room` bytes, but no fewer than `at_least`."""
    fitting: list[bytes] = []
    for line in piece.split(b"\n"):
        room -= len(line)
        if room < 0 and len(fitting) >= at_least:
            break
        fitting.append(line)
    return fitting


def _tail(connection: Connection, row: Mapping[Any, Any]) -> tuple[Chunk | None, str]:
    """Return the last chunk where it is to be written anew, and the digest of all rows before it (else of all)."""
    found = connection.execute(_LAST, {"key": row["set_key"], "before": row["num_rows"]}).all()
    if not found or found[0].num_rows >= TAIL_ROWS or found[0].size >= TAIL_BYTES:
        return None, row["digest"]
    last = found[0]
    payload = connection.execute(_PAYLOAD, {"key": row["set_key"], "first": last.first_row}).scalar_one()
    before = found[1].digest if len(found) > 1 else EMPTY
    return Chunk(last.first_row, last.num_rows, last.digest, payload), before

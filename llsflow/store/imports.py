"""Rows on their way to become a data set: written in short transactions, seen by nobody until all are there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, func, insert, select, update

from llsflow.errors import ConflictError, StorageError
from llsflow.store.chunks import Chunk, pack
from llsflow.store.database import Database
from llsflow.store.owners import this_process
from llsflow.store.records import Batch, StoredDataset
from llsflow.store.rows import EMPTY
from llsflow.store.tables import datasets, row_chunks, row_sets

FLUSH_BYTES = 1 << 18
FLUSH_ROWS = 2000
"""Rows gathered before a transaction: few enough that others write in between, many enough to be fast."""

_FIND = select(*(column for column in datasets.c if column.name != "set_key")).where(
    datasets.c.dataset_id == bindparam("id")
)


class RowImport:
    """An import, as a context manager: `write` batches, then `publish`; leaving it without discards them."""

    def __init__(self, database: Database, remove_rows: Callable[[int], None]) -> None:
        self._database = database
        self._remove_rows = remove_rows
        self._key: int | None = None
        self._chunks = 0
        self._stored = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.num_rows = 0
        self.characters = 0
        self.turns = 0
        self.digest = EMPTY
        """Of the rows that are in the store already; of all once they are published."""

    def __enter__(self) -> Self:
        """Begin."""
        with self._database.write(durable=False) as connection:
            made = connection.execute(insert(row_sets).values(owner=this_process(), started_at=datetime.now(UTC)))
            self._key = made.inserted_primary_key[0] if made.inserted_primary_key else None
        return self

    def __exit__(self, *_: object) -> None:
        """Discard the rows unless they were published."""
        if self._key is not None:
            self._remove_rows(self._key)
            self._key = None

    def write(self, batch: Batch) -> None:
        """Add rows."""
        self.num_rows += len(batch.lines)
        self.characters += batch.characters
        self.turns += batch.turns
        for line in batch.lines:
            self._pending.append(line)
            self._pending_bytes += len(line)
            if self._pending_bytes >= FLUSH_BYTES or len(self._pending) >= FLUSH_ROWS:
                self._flush()

    def publish(
        self, dataset_id: str, purpose: str, source: dict[str, Any], metadata: dict[str, Any], provider_id: str
    ) -> StoredDataset:
        """Make the rows a data set, on disk when this returns; or return the one that is there when it says the same.

        Raises:
            ConflictError: the id is another data set's; nothing has changed.
        """
        self._flush()
        new = StoredDataset(
            dataset_id, purpose, source, metadata, provider_id, self.num_rows, self.characters, self.turns,
            self.digest, self.num_rows, self.digest, datetime.now(UTC),
        )  # fmt: skip
        with self._database.write() as connection:
            self._database.lock_name(connection, "dataset", dataset_id)
            old = find(connection, dataset_id)
            if old is not None:
                _same_or_conflict(old, new)
                return old
            self._verify(connection)
            connection.execute(update(row_sets).where(row_sets.c.set_key == self._key).values(owner=None))
            connection.execute(insert(datasets).values(**vars(new), set_key=self._key))
        self._key = None
        return new

    def _flush(self) -> None:
        if self._key is None:
            raise RuntimeError("the import has ended")
        if not self._pending:
            return
        chunks = pack(self._pending, self._stored, self.digest)
        with self._database.write(durable=False) as connection:
            connection.execute(insert(row_chunks), [chunk_values(self._key, chunk) for chunk in chunks])
        self._chunks += len(chunks)
        self._stored += len(self._pending)
        self.digest = chunks[-1].digest
        self._pending = []
        self._pending_bytes = 0

    def _verify(self, connection: Connection) -> None:
        """Refuse to publish less than was written: a sweep that took this process for dead may have removed rows."""
        count, last = connection.execute(
            select(func.count(), func.max(row_chunks.c.first_row)).where(row_chunks.c.set_key == self._key)
        ).one()
        digest = connection.execute(
            select(row_chunks.c.digest).where(row_chunks.c.set_key == self._key, row_chunks.c.first_row == last)
        ).scalar()
        if (count, digest) != (self._chunks, self.digest if self._chunks else None):
            raise StorageError("the rows that were being imported are gone from the store: register the data set again")


def find(connection: Connection, dataset_id: str) -> StoredDataset | None:
    """Return the data set, or None."""
    found = connection.execute(_FIND, {"id": dataset_id}).mappings().first()
    return None if found is None else StoredDataset(**found)


def chunk_values(key: int, chunk: Chunk) -> dict[str, Any]:
    """Return a chunk as a row of its table."""
    return {"set_key": key, **vars(chunk)}


def _same_or_conflict(old: StoredDataset, new: StoredDataset) -> None:
    compared = {
        "rows": "registered_digest",
        "purpose": "purpose",
        "source": "source",
        "metadata": "metadata",
        "provider_id": "provider_id",
    }
    differ = [name for name, field in compared.items() if getattr(old, field) != getattr(new, field)]
    if differ:
        raise ConflictError(
            f"data set {old.dataset_id!r} is registered with other {' and '.join(differ)}: "
            "unregister it first, or take another dataset_id"
        )

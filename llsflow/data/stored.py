"""Rows of registered data sets by address: `store://<dataset_id>?rows=<first n>&digest=<sha256 of them>`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from llsflow import home
from llsflow.errors import DataError, Mistake
from llsflow.store import Store, StoredDataset, decode_row

SCHEME = "store://"
_FORM = f"{SCHEME}<dataset_id>?rows=<number>&digest=<sha256>"


@dataclass(frozen=True)
class StoreAddress:
    """The first rows of a registered data set."""

    dataset_id: str
    rows: int | None = None
    """None: all."""
    digest: str | None = None
    """What the rows must be; None: whatever they are."""

    @classmethod
    def parse(cls, uri: str) -> StoreAddress:
        """Read a `store://` address.

        Raises:
            DataError: it is not of that form.
        """
        dataset_id, _, query = uri.removeprefix(SCHEME).partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        settings = dict(pairs)
        rows = settings.pop("rows", None)
        digest = settings.pop("digest", None)
        if not dataset_id or settings or len(pairs) > 2 or (rows is not None and not _is_count(rows)):
            raise DataError([Mistake(uri[:200], f"is not an address of stored rows: write {_FORM}")])
        return cls(dataset_id, None if rows is None else int(rows), digest)

    def __str__(self) -> str:
        """Write it as a URI."""
        settings = {"rows": self.rows, "digest": self.digest}
        query = urlencode({name: value for name, value in settings.items() if value is not None})
        return f"{SCHEME}{self.dataset_id}" + (f"?{query}" if query else "")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


def address_of(dataset: StoredDataset) -> str:
    """Return the address of the rows that a data set holds now, with their digest."""
    return str(StoreAddress(dataset.dataset_id, dataset.num_rows, dataset.digest))


_lock = threading.Lock()
_opened: tuple[tuple[Any, ...], Store] | None = None


def shared_store() -> Store:
    """Return this process's store, opened at the first call.

    Raises:
        UnavailableError: it does not answer.
    """
    global _opened  # noqa: PLW0603 - one connection pool a process is the point
    key = (os.getpid(), os.environ.get("LLSFLOW_STORE_URL"), home.home())
    with _lock:
        if _opened is None or _opened[0] != key:
            if _opened is not None and _opened[0][0] == os.getpid():
                _opened[1].close()
            _opened = key, Store.open()
        return _opened[1]


def store_exists() -> bool:
    """Return whether there is a store to look into: asking must not make one."""
    return bool(os.environ.get("LLSFLOW_STORE_URL")) or (home.home() / "store.db").is_file()


def find(uri: str) -> tuple[StoreAddress, StoredDataset]:
    """Return the address with its number of rows and digest filled in, and the data set's record.

    Raises:
        DataError: there is no such data set, it has fewer rows, or the rows are others.
    """
    address = StoreAddress.parse(uri)
    where = f"data set {address.dataset_id}"
    store = shared_store()
    record = store.datasets.get(address.dataset_id)
    if record is None:
        known = ", ".join(other.dataset_id for other in store.datasets.list()[:50]) or "none"
        raise DataError([Mistake(where, f"is not registered in the store {store.url_shown}; registered are: {known}")])
    rows = record.num_rows if address.rows is None else address.rows
    if rows > record.num_rows:
        raise DataError([Mistake(where, f"holds {record.num_rows} rows, {rows} are asked for: lower rows=")])
    digest = record.digest if rows == record.num_rows else store.datasets.digest_at(record.dataset_id, rows)
    if address.digest not in (None, digest):
        message = f"its first {rows} rows have the digest {digest}, not {address.digest}: it was registered anew since"
        raise DataError([Mistake(where, f"{message}; leave out digest= to take the rows as they are now")])
    return StoreAddress(record.dataset_id, rows, digest), record


def read(address: StoreAddress) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows at an address with their numbers, counted from 1."""
    lines = shared_store().datasets.read(address.dataset_id, address.rows)
    yield from enumerate(map(decode_row, lines), 1)

"""Registering a data set: its source is read as a stream, checked, and in the store as a whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from llsflow.config import option_exists
from llsflow.data import row_format
from llsflow.data.checks import RowCheck, check_rows
from llsflow.data.conversation import Row
from llsflow.data.sources import OpenSource, open_source
from llsflow.errors import ConflictError, DataError, Mistake, NotFoundError
from llsflow.schema.datasets import HELD_OUT, DatasetPurpose, RegisterDatasetRequest, RowsDataSource
from llsflow.schema.server import ServerConfig
from llsflow.store import Store, StoredDataset, decode_row
from llsflow.store.imports import RowImport

PROVIDER = "llsflow"
"""Who provides what is registered; `conf` provides the files of conf/dataset."""

ROWS_SHOWN = 100
"""Inline rows that are kept as the source to show: the store holds all of them."""

_BATCH_ROWS = 1000
_MOST_KINDS = 10_000

_kinds_known: WeakKeyDictionary[Store, dict[tuple[str, datetime], bool]] = WeakKeyDictionary()
"""By store, data set and its time of registration: reading the first row again costs an append a tenth of its time."""


def register(
    store: Store, request: RegisterDatasetRequest, server: ServerConfig, config_dir: Path | None = None
) -> StoredDataset:
    """Read a data set's rows into the store and return its record; the one that is there, when it says the same.

    Raises:
        DataError: the source or rows of it cannot be used; nothing has changed.
        ConflictError: the id is another data set's; nothing has changed.
    """
    dataset_id = request.dataset_id or f"dataset-{uuid.uuid4()}"
    refuse_name(dataset_id, config_dir)
    check = RowCheck(request.purpose)
    with open_source(request.source, server, check.problems) as source, store.datasets.import_rows() as incoming:
        import_source(source, check, incoming)
        if not incoming.num_rows and not isinstance(request.source, RowsDataSource):
            raise DataError([Mistake(source.name, "holds no rows: at least one is needed")])
        return incoming.publish(dataset_id, request.purpose.value, _kept(request), request.metadata or {}, PROVIDER)


def import_source(source: OpenSource, check: RowCheck, incoming: RowImport) -> None:
    """Write every row of a source into an import.

    Raises:
        DataError: rows that cannot be used, or more of them than the limit.
    """
    size = 0
    for number, row in source.rows:
        size += check.take(row, source.where(number))
        if check.full:
            break
        if source.max_bytes is not None and size > source.max_bytes:
            raise DataError([Mistake(source.name, f"holds rows of over {source.max_bytes:,} bytes: that is the limit")])
        if len(check.lines) == _BATCH_ROWS:
            incoming.write(check.batch())
    check.refuse()
    incoming.write(check.batch())


def append(store: Store, dataset_id: str, rows: Iterable[Row]) -> StoredDataset:
    """Check rows against a data set's purpose and append them, all or none, on disk when this returns.

    Raises:
        DataError: rows that cannot be used, each with its number, counted from 1.
        NotFoundError: there is no such data set.
        ConflictError: it is a file of the configuration.
    """
    record = store.datasets.get(dataset_id)
    if record is None:
        raise NotFoundError(f"there is no data set {dataset_id!r}")
    if record.provider_id != PROVIDER:
        raise ConflictError(f"data set {dataset_id!r} is a file of conf/dataset: rows are added to that file")
    purpose = DatasetPurpose(record.purpose)
    # only training data has rows of two kinds that must not mix
    looks = record.num_rows and purpose is DatasetPurpose.POST_TRAINING_MESSAGES
    trains = _holds_conversations(store, record, purpose) if looks else None
    return store.datasets.append(dataset_id, check_rows(rows, purpose, trains))


def _holds_conversations(store: Store, record: StoredDataset, purpose: DatasetPurpose) -> bool:
    """Return whether the first row is a conversation; so it stays for as long as there is the data set."""
    known = _kinds_known.setdefault(store, {})
    version = (record.dataset_id, record.created_at)
    if version not in known:
        if len(known) >= _MOST_KINDS:
            known.clear()
        first = decode_row(store.datasets.page(record.dataset_id, 0, 1).lines[0])
        known[version] = row_format(first, purpose).turns is None
    return known[version]


def refuse_name(dataset_id: str, config_dir: Path | None) -> None:
    """Refuse an id that means something else already.

    Raises:
        DataError: it is how rows that are held out are named.
        ConflictError: a file of conf/dataset has it.
    """
    if dataset_id.endswith(HELD_OUT):
        message = f"{dataset_id!r} ends in {HELD_OUT}, which names the rows that a data set holds out: take another"
        raise DataError([Mistake("dataset_id", message)])
    if option_exists("dataset", dataset_id, config_dir):
        raise ConflictError(f"data set {dataset_id!r} is a file of conf/dataset: take another dataset_id")


def _kept(request: RegisterDatasetRequest) -> dict[str, Any]:
    source = request.source
    if isinstance(source, RowsDataSource):
        return {"type": "rows", "rows": source.rows[:ROWS_SHOWN]}
    return source.model_dump(mode="json")

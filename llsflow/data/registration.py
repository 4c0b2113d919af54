"""Registering a data set: its source is read as a stream, checked, and in the store as a whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
_MOST_SEEN = 10_000


@dataclass(frozen=True)
class _Registered:
    """What stays as it is for as long as there is the data set: appended rows are checked against it."""

    record: StoredDataset
    """Without the rows that are kept to show."""
    trains: bool | None
    """Whether its rows are conversations, or else preferences; None: it does not matter, or there are none yet."""


_seen: WeakKeyDictionary[Store, dict[str, _Registered]] = WeakKeyDictionary()
"""By store and data set: looking it up again costs an append a tenth of its time."""


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


def append(store: Store, dataset_id: str, rows: Sequence[Row]) -> StoredDataset:
    """Check rows against a data set's purpose and append them, all or none, on disk when this returns.

    What is returned holds none of the rows that are kept to show.

    Raises:
        DataError: rows that cannot be used, each with its number, counted from 1.
        NotFoundError: there is no such data set.
        ConflictError: it is a file of the configuration, or was registered anew while the rows were checked.
    """
    seen = _seen.setdefault(store, {})
    known = seen.get(dataset_id)
    if known is not None:
        try:
            return _append(store, dataset_id, rows, known)
        except (DataError, ConflictError, NotFoundError):
            seen.pop(dataset_id, None)  # it may be another one by now: look again
    known = _look(store, dataset_id)
    if known.trains is not None or known.record.purpose != DatasetPurpose.POST_TRAINING_MESSAGES:
        if len(seen) >= _MOST_SEEN:
            seen.clear()
        seen[dataset_id] = known
    return _append(store, dataset_id, rows, known)


def _append(store: Store, dataset_id: str, rows: Sequence[Row], known: _Registered) -> StoredDataset:
    batch = check_rows(rows, DatasetPurpose(known.record.purpose), known.trains)
    return replace(known.record, **vars(store.datasets.append(dataset_id, batch, known.record.created_at)))


def _look(store: Store, dataset_id: str) -> _Registered:
    record = store.datasets.get(dataset_id)
    if record is None:
        raise NotFoundError(f"there is no data set {dataset_id!r}")
    if record.provider_id != PROVIDER:
        raise ConflictError(f"data set {dataset_id!r} is a file of conf/dataset: rows are added to that file")
    purpose = DatasetPurpose(record.purpose)
    trains = None
    # only training data has rows of two kinds that must not mix
    if record.num_rows and purpose is DatasetPurpose.POST_TRAINING_MESSAGES:
        first = decode_row(store.datasets.page(dataset_id, 0, 1).lines[0])
        trains = row_format(first, purpose).turns is None
    source = {"type": "rows", "rows": []} if record.source["type"] == "rows" else record.source
    return _Registered(replace(record, source=source), trains)


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

"""One SQL store: data sets and their rows, benchmarks, jobs. Importing this is light: Store.open loads SQLAlchemy."""

from llsflow.errors import ConflictError, NotFoundError
from llsflow.store.handle import Store
from llsflow.store.records import (
    Batch,
    JobChanges,
    JobKind,
    Page,
    StoredBenchmark,
    StoredCheckpoint,
    StoredDataset,
    StoredJob,
)
from llsflow.store.rows import EMPTY, chain, decode_row, encode_row

__all__ = [
    "EMPTY",
    "Batch",
    "ConflictError",
    "JobChanges",
    "JobKind",
    "NotFoundError",
    "Page",
    "Store",
    "StoredBenchmark",
    "StoredCheckpoint",
    "StoredDataset",
    "StoredJob",
    "chain",
    "decode_row",
    "encode_row",
]

"""One SQL store: data sets and their rows, benchmarks, jobs, agents. Importing this is light: Store.open is not."""

from llsflow.errors import ConflictError, NotFoundError
from llsflow.store.handle import Store
from llsflow.store.records import (
    Batch,
    JobChanges,
    JobKind,
    Page,
    StoredAgent,
    StoredBenchmark,
    StoredCheckpoint,
    StoredDataset,
    StoredJob,
    StoredSession,
    StoredTurn,
    TurnStatus,
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
    "StoredAgent",
    "StoredBenchmark",
    "StoredCheckpoint",
    "StoredDataset",
    "StoredJob",
    "StoredSession",
    "StoredTurn",
    "TurnStatus",
    "chain",
    "decode_row",
    "encode_row",
]

"""Registered benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select

from llsflow.errors import ConflictError
from llsflow.store.database import Database
from llsflow.store.records import StoredBenchmark
from llsflow.store.tables import benchmarks


class Benchmarks:
    """The benchmarks of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, benchmark_id: str) -> StoredBenchmark | None:
        """Return the benchmark, or None."""
        with self._database.read() as connection:
            found = connection.execute(select(benchmarks).where(benchmarks.c.benchmark_id == benchmark_id)).mappings()
            return next(map(_record, found), None)

    def list(self) -> Sequence[StoredBenchmark]:
        """Return every benchmark, in the order of registration."""
        with self._database.read() as connection:
            every = select(benchmarks).order_by(benchmarks.c.created_at, benchmarks.c.benchmark_id)
            return [_record(row) for row in connection.execute(every).mappings()]

    def register(
        self, benchmark_id: str, dataset_id: str, scoring_functions: Sequence[str], metadata: dict[str, Any]
    ) -> StoredBenchmark:
        """Store the benchmark, or return the one that is there when it says the same.

        Raises:
            ConflictError: the id is another benchmark's.
        """
        new = StoredBenchmark(benchmark_id, dataset_id, list(scoring_functions), metadata, datetime.now(UTC))
        with self._database.write() as connection:
            self._database.lock_name(connection, "benchmark", benchmark_id)
            found = connection.execute(select(benchmarks).where(benchmarks.c.benchmark_id == benchmark_id)).mappings()
            for row in found:
                old = _record(row)
                differ = [
                    n for n in ("dataset_id", "scoring_functions", "metadata") if getattr(old, n) != getattr(new, n)
                ]
                if differ:
                    raise ConflictError(
                        f"benchmark {benchmark_id!r} is registered with other {' and '.join(differ)}: "
                        "unregister it first, or take another benchmark_id"
                    )
                return old
            connection.execute(insert(benchmarks).values(vars(new)))
        return new

    def delete(self, benchmark_id: str) -> bool:
        """Remove the benchmark and return whether it was there."""
        with self._database.write() as connection:
            return connection.execute(delete(benchmarks).where(benchmarks.c.benchmark_id == benchmark_id)).rowcount > 0


def _record(row: RowMapping) -> StoredBenchmark:
    return StoredBenchmark(**row)

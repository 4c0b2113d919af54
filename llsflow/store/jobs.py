"""Jobs, their checkpoints and their results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from sqlalchemy import RowMapping, Select, delete, insert, select, update

from llsflow.errors import ConflictError, NotFoundError
from llsflow.schema.jobs import JobStatus
from llsflow.store.database import Database
from llsflow.store.records import JobChanges, JobKind, StoredCheckpoint, StoredJob
from llsflow.store.tables import checkpoints, job_results, jobs

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Jobs:
    """The jobs of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, job: StoredJob) -> tuple[StoredJob, bool]:
        """Store the job and return it with True; or the one that is there, with False, when its request is the same.

        Raises:
            ConflictError: the id is another request's.
        """
        with self._database.write() as connection:
            self._database.lock_name(connection, "job", job.job_id)
            for old in _jobs(connection, select(jobs).where(jobs.c.job_id == job.job_id)):
                if (old.kind, old.request_digest) != (job.kind, job.request_digest):
                    raise ConflictError(
                        f"job {job.job_id!r} was posted with another body: take another name, or post the same body"
                    )
                return old, False
            connection.execute(insert(jobs).values(vars(job)))
        return job, True

    def get(self, job_id: str) -> StoredJob | None:
        """Return the job, or None."""
        return self._first(select(jobs).where(jobs.c.job_id == job_id))

    def list(self, kind: JobKind | None = None) -> Sequence[StoredJob]:
        """Return every job, or those of one kind, the newest first."""
        every = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.job_id)
        with self._database.read() as connection:
            return _jobs(connection, every if kind is None else every.where(jobs.c.kind == kind))

    def unended(self) -> Sequence[StoredJob]:
        """Return the jobs that have not ended, the oldest first."""
        open_states = [status.value for status in JobStatus if not status.ended]
        with self._database.read() as connection:
            return _jobs(
                connection,
                select(jobs).where(jobs.c.status.in_(open_states)).order_by(jobs.c.created_at, jobs.c.job_id),
            )

    def recent(self, request_digest: str, seconds: float) -> StoredJob | None:
        """Return the newest job of the same request that was created in the last `seconds`, or None."""
        since = datetime.now(UTC) - timedelta(seconds=seconds)
        same = select(jobs).where(jobs.c.request_digest == request_digest, jobs.c.created_at >= since)
        return self._first(same.order_by(jobs.c.created_at.desc()).limit(1))

    def update(
        self, job_id: str, *, only_if: Collection[JobStatus] | None = None, **changes: Unpack[JobChanges]
    ) -> bool:
        """Change a job, on disk when this returns, and return whether it was there with one of the statuses `only_if`.

        The only way a status changes.
        """
        change = update(jobs).where(jobs.c.job_id == job_id).values(**_columns(changes))
        if only_if is not None:
            change = change.where(jobs.c.status.in_([status.value for status in only_if]))
        with self._database.write() as connection:
            return connection.execute(change).rowcount > 0

    def delete(self, job_id: str) -> bool:
        """Remove a job with its checkpoints' records and its result, and return whether it was there."""
        with self._database.write() as connection:
            return connection.execute(delete(jobs).where(jobs.c.job_id == job_id)).rowcount > 0

    def add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """Record a checkpoint; one of the same identifier is replaced.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._database.write() as connection:
            _require(connection, checkpoint.job_id)
            connection.execute(delete(checkpoints).where(checkpoints.c.identifier == checkpoint.identifier))
            connection.execute(insert(checkpoints).values(vars(checkpoint)))

    def checkpoint(self, identifier: str) -> StoredCheckpoint | None:
        """Return the checkpoint, or None."""
        with self._database.read() as connection:
            found = connection.execute(select(checkpoints).where(checkpoints.c.identifier == identifier)).mappings()
            return next((StoredCheckpoint(**row) for row in found), None)

    def checkpoints(self, job_id: str) -> Sequence[StoredCheckpoint]:
        """Return the checkpoints of a job, by step."""
        return self._checkpoints(select(checkpoints).where(checkpoints.c.job_id == job_id))

    def all_checkpoints(self) -> Sequence[StoredCheckpoint]:
        """Return every job's checkpoints, by step within the job."""
        return self._checkpoints(select(checkpoints).order_by(checkpoints.c.job_id))

    def set_result(self, job_id: str, result: bytes) -> None:
        """Store what an evaluation found, on disk when this returns; an earlier result is replaced.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._database.write() as connection:
            _require(connection, job_id)
            connection.execute(delete(job_results).where(job_results.c.job_id == job_id))
            connection.execute(insert(job_results).values(job_id=job_id, payload=result))

    def result(self, job_id: str) -> bytes | None:
        """Return the result, or None where there is none yet."""
        with self._database.read() as connection:
            return connection.execute(
                select(job_results.c.payload).where(job_results.c.job_id == job_id)
            ).scalar_one_or_none()

    def _first(self, statement: Select[Any]) -> StoredJob | None:
        with self._database.read() as connection:
            return next(iter(_jobs(connection, statement)), None)

    def _checkpoints(self, statement: Select[Any]) -> Sequence[StoredCheckpoint]:
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(checkpoints.c.step, checkpoints.c.identifier)).mappings()
            return [StoredCheckpoint(**row) for row in found]


def _jobs(connection: Connection, statement: Select[Any]) -> Sequence[StoredJob]:
    return [_record(row) for row in connection.execute(statement).mappings()]


def _record(row: RowMapping) -> StoredJob:
    return StoredJob(**{**row, "status": JobStatus(row["status"])})


def _columns(changes: JobChanges) -> dict[str, Any]:
    unknown = sorted(changes.keys() - JobChanges.__annotations__.keys())
    if unknown or not changes:
        raise TypeError(f"a job's {', '.join(unknown) or 'nothing'} cannot change")
    return dict(changes)


def _require(connection: Connection, job_id: str) -> None:
    if connection.execute(select(jobs.c.job_id).where(jobs.c.job_id == job_id)).first() is None:
        raise NotFoundError(f"there is no job {job_id!r}")

"""Our record of the jobs against what Prefect and this machine know: nothing stays under way that nobody does."""

from __future__ import annotations

import contextlib
import logging
import platform
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from llsflow.errors import LlsflowError, UnavailableError
from llsflow.jobs.state import UNDER_WAY, alive
from llsflow.plan import FlowState, FlowStatus, Submitter
from llsflow.schema.jobs import JobStatus
from llsflow.schema.server import JobsConfig
from llsflow.store import Store, StoredJob

logger = logging.getLogger("llsflow.jobs")

CRASHES_BORNE = 3
"""A job that loses its process so often without a word is not started again."""

_ENDED = (FlowState.COMPLETED, FlowState.FAILED, FlowState.CRASHED)

GONE = (*_ENDED, FlowState.CANCELLED, FlowState.UNKNOWN)


class Reconciler:
    """Submits what waits to be submitted, ends what has ended, and picks up what lost its process."""

    def __init__(
        self,
        store: Store,
        submitter: Submitter,
        config: JobsConfig,
        settle_record: Callable[[str], None] = lambda job_id: None,
    ) -> None:
        """Make a reconciler; what is under way now is looked at first.

        Args:
            store: with the jobs.
            submitter: hands them to a worker.
            config: what becomes of those that crashed.
            settle_record: ends what a lost job that does not go on has open in MLflow; may take seconds.
        """
        self.store, self.submitter, self.config, self.settle_record = store, submitter, config, settle_record
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._doubtful: set[tuple[str, str | None]] = set()
        """Jobs with the flow runs that an earlier server, or a worker that has ended, had under way."""
        self.doubt()

    def start(self, every_seconds: float = 2.0) -> None:
        """Go on reconciling in a thread, until `close`."""

        def follow() -> None:
            while not self._closing.wait(every_seconds):
                try:
                    self.once()
                except UnavailableError as error:
                    logger.debug("jobs are not reconciled now: %s", error)
                except Exception:
                    logger.exception("jobs could not be reconciled")

        self._thread = threading.Thread(target=follow, name="jobs-reconcile", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread:
            self._thread.join(timeout=10.0)

    def doubt(self) -> None:
        """Take nothing for granted of what is under way now: its worker ended, and may have lost it."""
        self._doubtful |= {(job.job_id, job.flow_run_id) for job in self.store.jobs.unended()}

    def once(self) -> None:
        """Look at every job that has not ended.

        Raises:
            UnavailableError: Prefect does not answer.
        """
        jobs = self.store.jobs.unended()
        if not jobs or not self.submitter.ready():
            return
        statuses = self.submitter.statuses([job.flow_run_id for job in jobs if job.flow_run_id])
        for job in jobs:
            try:
                self._reconcile(job, statuses)
            except LlsflowError as error:
                logger.warning("job %s: %s", job.job_id, error)
        self._doubtful.clear()

    def _reconcile(self, job: StoredJob, statuses: Mapping[str, FlowStatus]) -> None:
        if job.flow_run_id is None:
            if not alive(job.job_id):
                # one that no process has had yet may be with Prefect already, or be on its way: the same attempt is
                # the same flow run
                self._submit(job, job.attempt + (job.started_at is not None))
            return
        status = statuses.get(job.flow_run_id, FlowStatus(FlowState.UNKNOWN))
        suspicious = status.state in GONE or _was_here(job) or (job.job_id, job.flow_run_id) in self._doubtful
        if suspicious and not alive(job.job_id):
            self._lost(job, status)

    def _lost(self, job: StoredJob, status: FlowStatus) -> None:
        """Decide what becomes of a job that no process does any more."""
        latest = self.store.jobs.get(job.job_id)
        if latest is None or latest.status.ended or latest.flow_run_id != job.flow_run_id:
            return
        if latest.cancel_requested or status.state is FlowState.CANCELLED:
            self._end(latest, JobStatus.CANCELLED, None)
        else:
            self._crashed(latest, status)

    def _crashed(self, job: StoredJob, status: FlowStatus) -> None:
        """Have a job go on that lost its process, or whose process could not write down how it ended."""
        why = "its process was killed, or the machine went down"
        if status.state in (FlowState.FAILED, FlowState.COMPLETED):
            why = f"its process could not write down how it ended ({status.state})"
        under_way = job.status is JobStatus.IN_PROGRESS
        # where the whole server went down, or its worker, that is not the job's doing
        own_fault = (job.job_id, job.flow_run_id) not in self._doubtful and (under_way or status.state in _ENDED)
        crashes = int((job.resources or {}).get("crashes", 0)) + own_fault
        if under_way and self.config.after_crash == "fail":
            self._end(
                job, JobStatus.FAILED, f"{why}; server.jobs.after_crash is fail: the same under another name goes on"
            )
        elif crashes >= CRASHES_BORNE:
            self._end(job, JobStatus.FAILED, f"{why}, {crashes} times: {status.message or 'without a word'}")
        else:
            if under_way or own_fault:
                logger.info("job %s goes on: %s", job.job_id, why)
            else:
                logger.info("job %s waits for a worker again", job.job_id)
            self.store.jobs.update(
                job.job_id, only_if=UNDER_WAY, resources={**(job.resources or {}), "crashes": crashes}
            )
            self._submit(job, job.attempt + 1)

    def _submit(self, job: StoredJob, attempt: int) -> None:
        if job.flow_run_id:
            # whoever may still find the earlier run is told that the job no longer belongs to it
            with contextlib.suppress(LlsflowError):
                self.submitter.cancel(job.flow_run_id)
        flow_run_id = self.submitter.submit(job.job_id, attempt, [job.kind])
        self.store.jobs.update(
            job.job_id, only_if=UNDER_WAY, status=JobStatus.SCHEDULED, attempt=attempt, flow_run_id=flow_run_id
        )

    def _end(self, job: StoredJob, status: JobStatus, error: str | None) -> None:
        self.store.jobs.update(
            job.job_id, only_if=UNDER_WAY, status=status, error=error, completed_at=datetime.now(UTC)
        )
        if job.started_at:
            try:
                self.settle_record(job.job_id)
            except LlsflowError as failed:
                logger.warning("the record of job %s in MLflow stays open: %s", job.job_id, failed)


def _was_here(job: StoredJob) -> bool:
    """Return whether the process of the job was one of this machine, so that its lock tells whether it lives."""
    return job.status is JobStatus.IN_PROGRESS and (job.resources or {}).get("host") == platform.node()

"""A job as the process that does it sees it: taken from the store, run as a plan, and its end written down."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llsflow import home
from llsflow.config import load_experiment
from llsflow.errors import LlsflowError, NotFoundError, Stopped
from llsflow.jobs.compiling import write_config
from llsflow.jobs.state import AWAY, UNDER_WAY, insist, lock_name
from llsflow.jobs.watcher import JobWatcher
from llsflow.plan import compile_plan
from llsflow.schema.jobs import JobStatus
from llsflow.schema.plan import Plan
from llsflow.steps.context import Origin, PlanRun
from llsflow.store import Store, StoredJob

logger = logging.getLogger("llsflow.jobs")


@dataclass
class JobWork:
    """One job under way in this process."""

    job: StoredJob
    plan: Plan
    origin: Origin
    watcher: JobWatcher
    cancelled: Callable[[], bool] = field(default=lambda: False)
    """Whether somebody cancelled the run elsewhere than in our store: on the page of Prefect."""
    _links: dict[str, str] = field(default_factory=dict)

    def stopping(self) -> bool:
        """Return whether the job is to stop."""
        return self.watcher.stop.is_set()

    def opened(self, plan_run: PlanRun) -> None:
        """Keep where the run can be looked at."""
        self._links["mlflow"] = plan_run.tracking.page(plan_run.run.id)
        if plan_run.flow_url:
            self._links["prefect"] = plan_run.flow_url
        links = dict(self._links)
        self.watcher.keep(lambda: self.watcher.store.jobs.update(self.job.job_id, links=links))


@contextmanager
def open_job(job_id: str, flow_run_id: str, stopping: Callable[[], bool] = lambda: False) -> Iterator[JobWork]:
    """Take a job from the store for this process, and write down how it ended.

    Args:
        job_id: the job.
        flow_run_id: the flow run that this process serves: a later one takes the job away from it.
        stopping: whether this process is to end; the job then waits to be taken up again.

    Raises:
        NotFoundError: there is no such job.
        Stopped: the job is over, cancelled, or belongs to a later flow run.
        LlsflowError: it cannot be done; the job has failed with the sentence.
    """
    store = Store.open()
    try:
        with home.locked(lock_name(job_id), waiting_for=f"an earlier process of job {job_id}", stop=stopping):
            job = _take(store, job_id, flow_run_id)
            with _ending(store, job, stopping) as end:
                path = write_config(job_id, job.config)
                loaded = load_experiment(None, [], config_file=path)
                plan = compile_plan(loaded.experiment)
                watcher = JobWatcher(store, job_id, plan)
                origin = Origin(config=job.config, command=f"llsflow run --config {path}")
                logger.info("job %s is taken: attempt %d, plan %s", job_id, job.attempt, plan.key[:8])
                with watcher.open():
                    work = end.work = JobWork(job, plan, origin, watcher)
                    yield work
    finally:
        store.close()


def _take(store: Store, job_id: str, flow_run_id: str) -> StoredJob:
    job = store.jobs.get(job_id)
    if job is None:
        raise NotFoundError(f"no job {job_id!r} in the store {store.url_shown}")
    if job.flow_run_id not in (None, flow_run_id):
        raise Stopped(f"job {job_id} belongs to a later flow run, {job.flow_run_id}")
    now = datetime.now(UTC)
    resources = {"host": platform.node(), "pid": os.getpid(), "cpus": os.cpu_count()}
    taken = store.jobs.update(
        job_id,
        only_if=UNDER_WAY,
        status=JobStatus.IN_PROGRESS,
        started_at=job.started_at or now,
        flow_run_id=flow_run_id,
        resources={**(job.resources or {}), **resources},
        error=None,
    )
    if not taken:
        raise Stopped(f"job {job_id} has ended already")
    return store.jobs.get(job_id) or job


class _ending:
    """Writes down how a job ended, whichever way it did."""

    def __init__(self, store: Store, job: StoredJob, stopping: Callable[[], bool]) -> None:
        self.store, self.job, self.stopping = store, job, stopping
        self.work: JobWork | None = None

    def __enter__(self) -> _ending:
        if self.job.cancel_requested:
            self._end(JobStatus.CANCELLED)
            raise Stopped(f"job {self.job.job_id} was cancelled before it began")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._end(JobStatus.COMPLETED)
        elif isinstance(error, Stopped | KeyboardInterrupt | SystemExit):
            insist(self._stopped)
        elif isinstance(error, AWAY) and self.work and self.work.watcher.owes:
            logger.error("job %s: %s; what it did stays, and another attempt tells the store", self.job.job_id, error)
        elif isinstance(error, LlsflowError):
            self._end(JobStatus.FAILED, str(error))
        else:
            logger.error("job %s", self.job.job_id, exc_info=error)
            self._end(JobStatus.FAILED, "llsflow itself failed: the whole story is in the log of the flow run")

    def _stopped(self) -> None:
        latest = self.store.jobs.get(self.job.job_id)
        if (latest and latest.cancel_requested) or (self.work and self.work.cancelled()):
            self._end(JobStatus.CANCELLED)
        else:
            # the server went down, not the job: whoever starts it again submits the job anew
            self.store.jobs.update(self.job.job_id, only_if=UNDER_WAY, status=JobStatus.SCHEDULED, flow_run_id=None)

    def _end(self, status: JobStatus, error: str | None = None) -> None:
        ended_at = datetime.now(UTC)
        insist(
            lambda: self.store.jobs.update(
                self.job.job_id, only_if=UNDER_WAY, status=status, error=error, completed_at=ended_at
            )
        )

"""What the API asks of jobs: start, look, cancel, and read what they made."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from llsflow import home
from llsflow.errors import ConflictError, MistakesError, NotFoundError, UnavailableError
from llsflow.jobs import requests
from llsflow.jobs.compiling import Compiled, write_config
from llsflow.jobs.requests import Names
from llsflow.jobs.rows import evaluate_rows
from llsflow.jobs.state import UNDER_WAY
from llsflow.jobs.views import checkpoint_model, checkpoint_view, conf_models
from llsflow.plan import Submitter
from llsflow.rerank import ranker_of, rerank
from llsflow.schema.benchmarks import Benchmark, BenchmarkConfig, EvaluateRowsRequest
from llsflow.schema.experiment import Experiment
from llsflow.schema.jobs import Checkpoint, JobStatus, PreferenceOptimizeRequest, SupervisedFineTuneRequest
from llsflow.schema.models import Model
from llsflow.schema.rerank import RerankRequest, RerankResponse
from llsflow.schema.scoring import EvaluateResponse
from llsflow.schema.server import ServerConfig
from llsflow.store import JobKind, Store, StoredJob

TRAINING: Final = "post-training"
EVALUATION: Final = "eval"

ROWS_AT_ONCE = 8
"""Requests that wait for their rows at the same time: each holds a thread of the server for as long as it lasts."""

RETRY_SECONDS = 300.0
"""A client that repeats a request that names no job, and says that it does, means the job of these last seconds."""


@dataclass
class _Turn:
    """Requests for one name, one after the other."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    """Those that have the lock or want it."""


@dataclass
class JobsService:
    """Jobs, as the API sees them; safe to call from many threads."""

    store: Store
    server: ServerConfig
    submitter: Submitter
    names: Names
    compile: Callable[[Experiment], Compiled]
    """Compiles an experiment; where it may be long, in another process."""
    benchmark: Callable[[str], Benchmark]
    """Returns a benchmark of the catalogue; NotFoundError."""
    engine_url: Callable[[], str]
    """Returns where the inference engine answers; UnavailableError."""
    _starting: dict[str, _Turn] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _waiting: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(ROWS_AT_ONCE))

    def fine_tune(self, request: SupervisedFineTuneRequest) -> StoredJob:
        """Start a fine-tuning job; the same request again is the same job.

        Raises:
            ConflictError: the job_uuid is taken by a different request.
            ConfigError, DataError, NotFoundError: it cannot be done, and why.
            UnavailableError: nobody can take jobs now.
        """

        def experiment() -> Experiment:
            return requests.fine_tuning(request, self.server, self.names)

        return self._start(TRAINING, request.job_uuid, request.model_dump(mode="json"), experiment)

    def optimize(self, request: PreferenceOptimizeRequest) -> StoredJob:
        """Start a job of preference optimisation; the same request again is the same job.

        Raises:
            ConflictError: the job_uuid is taken by a different request.
            ConfigError, DataError, NotFoundError: it cannot be done, and why.
            UnavailableError: nobody can take jobs now.
        """

        def experiment() -> Experiment:
            return requests.preference_optimisation(request, self.server, self.names)

        return self._start(TRAINING, request.job_uuid, request.model_dump(mode="json"), experiment)

    def evaluate(self, benchmark_id: str, config: BenchmarkConfig, *, retried: bool = False) -> StoredJob:
        """Start an evaluation job.

        Args:
            benchmark_id: the benchmark.
            config: the candidate and how it is scored.
            retried: the client says that it has sent this before: the job of the first time is answered.

        Raises:
            ConfigError, DataError, NotFoundError: it cannot be done, and why.
            UnavailableError: nobody can take jobs now.
        """
        benchmark = self.benchmark(benchmark_id)
        body = {"benchmark_id": benchmark_id, "benchmark_config": config.model_dump(mode="json")}
        with self._one_at_a_time(home.digest(body)):
            if retried and (known := self.store.jobs.recent(home.digest(body), RETRY_SECONDS)):
                return known
            job_id = f"eval-{secrets.token_hex(8)}"

            def experiment() -> Experiment:
                return requests.evaluation(
                    job_id, benchmark_id, benchmark.dataset_id, benchmark.scoring_functions, config, self.names
                )

            return self._start(EVALUATION, job_id, body, experiment, benchmark_id)

    def job(self, job_id: str, kind: JobKind, benchmark_id: str | None = None) -> StoredJob:
        """Return a job of that kind, and of that benchmark where one is named.

        Raises:
            NotFoundError: there is none.
        """
        job = self.store.jobs.get(job_id)
        if job is None or job.kind != kind:
            raise NotFoundError(f"no {kind} job {job_id!r}")
        if benchmark_id is not None and job.benchmark_id != benchmark_id:
            raise NotFoundError(f"no job {job_id!r} of benchmark {benchmark_id!r}")
        return job

    def all(self, kind: JobKind) -> Sequence[StoredJob]:
        """Return every job of a kind, the newest first."""
        return self.store.jobs.list(kind)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Return what a training job has made so far, in the order of its steps.

        Raises:
            NotFoundError: there is no such job.
        """
        self.job(job_id, TRAINING)
        made = sorted(self.store.jobs.checkpoints(job_id), key=lambda known: (known.step, known.identifier == job_id))
        return [checkpoint_view(checkpoint) for checkpoint in made]

    def result(self, job_id: str, benchmark_id: str) -> bytes:
        """Return the EvaluateResponse of a completed evaluation, as JSON.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has not completed, and what it does.
        """
        job = self.job(job_id, EVALUATION, benchmark_id)
        found = self.store.jobs.result(job_id) if job.status is JobStatus.COMPLETED else None
        if found is None:
            why = f": {job.error}" if job.error else ""
            raise ConflictError(f"job {job_id} has no result: it is {job.status}{why}")
        return found

    def cancel(self, job_id: str, kind: JobKind, benchmark_id: str | None = None) -> None:
        """Have a job stopped at its next step boundary; its checkpoints and the rows that were answered stay.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended.
        """
        job = self.job(job_id, kind, benchmark_id)
        asked = self.store.jobs.update(job_id, only_if=UNDER_WAY, cancel_requested=True)
        if not asked:
            latest = self.store.jobs.get(job_id)
            raise ConflictError(f"job {job_id} has ended already: it is {latest.status if latest else 'gone'}")
        # one that no process does yet has nothing to finish
        self.store.jobs.update(
            job_id, only_if=(JobStatus.SCHEDULED,), status=JobStatus.CANCELLED, completed_at=datetime.now(UTC)
        )
        if job.flow_run_id:
            # the process of the job reads the store too: this is only the shorter way
            with contextlib.suppress(UnavailableError):
                self.submitter.cancel(job.flow_run_id)

    def evaluate_rows(self, benchmark_id: str, request: EvaluateRowsRequest) -> EvaluateResponse:
        """Answer and score rows while the caller waits; a row that cannot be answered is told in its place.

        Raises:
            ConfigError, NotFoundError: it cannot be done, and why.
            UnavailableError: the inference engine does not answer, or too many wait for it.
        """
        self.benchmark(benchmark_id)
        if not self._waiting.acquire(blocking=False):
            raise UnavailableError(
                f"{ROWS_AT_ONCE} requests are waiting for their rows already: try again, or post a job"
            )
        try:
            return evaluate_rows(request, self.names, self.engine_url)
        finally:
            self._waiting.release()

    def rerank(self, request: RerankRequest) -> RerankResponse:
        """Put items in the order of their relevance to a query.

        Raises:
            ConfigError, NotFoundError: it cannot be done, and why.
            UnavailableError: the inference engine or an endpoint does not answer.
        """
        return rerank(request, ranker_of(requests.known_model(request.model, self.names), self.engine_url))

    def models(self) -> list[Model]:
        """Return every model: those of conf/model, and the checkpoints of every training job."""
        return [*conf_models(), *(checkpoint_model(known) for known in self.store.jobs.all_checkpoints())]

    @contextlib.contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[None]:
        with self._guard:
            turn = self._starting.setdefault(name, _Turn())
            turn.waiting += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._guard:
                turn.waiting -= 1
                if not turn.waiting:
                    del self._starting[name]

    def _start(
        self,
        kind: JobKind,
        job_id: str,
        body: Mapping[str, Any],
        experiment: Callable[[], Experiment],
        benchmark_id: str | None = None,
    ) -> StoredJob:
        with self._one_at_a_time(f"job {job_id}"):
            digest = home.digest({"kind": kind, **body} if kind == TRAINING else body)
            known = self.store.jobs.get(job_id)
            if known is not None:
                if known.request_digest != digest:
                    raise ConflictError(
                        f"job {job_id!r} is there already, from a different request: choose another name"
                    )
                return known
            if not self.submitter.ready():
                raise UnavailableError("no worker can take jobs now: Prefect is starting, or it is down")
            checked = experiment()
            try:
                compiled = self.compile(checked)
            except MistakesError as error:
                raise requests.in_the_request(error) from error
            write_config(job_id, compiled.config)
            job, _ = self.store.jobs.create(
                StoredJob(
                    job_id=job_id,
                    kind=kind,
                    benchmark_id=benchmark_id,
                    request=dict(body),
                    request_digest=digest,
                    config=compiled.config,
                    plan_key=compiled.plan_key,
                    datasets=requests.registered_datasets(checked),
                    status=JobStatus.SCHEDULED,
                    attempt=1,
                    created_at=datetime.now(UTC),
                )
            )
            # It is kept from here on: what Prefect does not take now, or took without an answer, is submitted again
            # as the same attempt.
            with contextlib.suppress(UnavailableError):
                flow_run_id = self.submitter.submit(job_id, job.attempt, [kind])
                self.store.jobs.update(job_id, only_if=UNDER_WAY, flow_run_id=flow_run_id)
            return job

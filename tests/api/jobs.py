"""Jobs that are written into the store and never run: what the HTTP layer asks of the service of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llsflow.api.catalogue import find_benchmark
from llsflow.errors import ConflictError, NotFoundError
from llsflow.home import digest
from llsflow.jobs.names import CatalogueNames
from llsflow.jobs.requests import known_model
from llsflow.jobs.views import checkpoint_view
from llsflow.rerank import ranker_of, rerank
from llsflow.schema.benchmarks import BenchmarkConfig, EvaluateRowsRequest
from llsflow.schema.jobs import Checkpoint, JobStatus, PreferenceOptimizeRequest, SupervisedFineTuneRequest
from llsflow.schema.models import Model
from llsflow.schema.rerank import RerankRequest, RerankResponse
from llsflow.schema.scoring import EvaluateResponse, ScoringResult
from llsflow.store import Store, StoredJob


@dataclass
class WrittenJobs:
    """As the service of jobs, without a worker."""

    store: Store
    asked: list[Any] = field(default_factory=list)

    def fine_tune(self, request: SupervisedFineTuneRequest) -> StoredJob:
        """Write the job down."""
        self.asked.append(request)
        data = request.training_config.data_config
        return self._written(
            "post-training", request.job_uuid, request.model_dump(mode="json"), [data.dataset_id] if data else []
        )

    def optimize(self, request: PreferenceOptimizeRequest) -> StoredJob:
        """Write the job down."""
        self.asked.append(request)
        data = request.training_config.data_config
        return self._written(
            "post-training", request.job_uuid, request.model_dump(mode="json"), [data.dataset_id] if data else []
        )

    def evaluate(self, benchmark_id: str, config: BenchmarkConfig, *, retried: bool = False) -> StoredJob:
        """Write the job down."""
        self.asked.append((config, retried))
        benchmark = find_benchmark(self.store, benchmark_id)
        body = {"benchmark_id": benchmark_id, **config.model_dump(mode="json")}
        number = len(self.store.jobs.list("eval"))
        return self._written("eval", f"eval-{number}", body, [benchmark.dataset_id], benchmark_id)

    def job(self, job_id: str, kind: str, benchmark_id: str | None = None) -> StoredJob:
        """Look it up."""
        job = self.store.jobs.get(job_id)
        if job is None or job.kind != kind or (benchmark_id is not None and job.benchmark_id != benchmark_id):
            raise NotFoundError(f"no {kind} job {job_id!r}")
        return job

    def all(self, kind: str) -> list[StoredJob]:
        """List them."""
        return list(self.store.jobs.list(kind))

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """List what it made."""
        self.job(job_id, "post-training")
        return [checkpoint_view(checkpoint) for checkpoint in self.store.jobs.checkpoints(job_id)]

    def result(self, job_id: str, benchmark_id: str) -> bytes:
        """Look it up."""
        self.job(job_id, "eval", benchmark_id)
        found = self.store.jobs.result(job_id)
        if found is None:
            raise ConflictError(f"job {job_id} has no result")
        return found

    def cancel(self, job_id: str, kind: str, benchmark_id: str | None = None) -> None:
        """Cancel it."""
        if self.job(job_id, kind, benchmark_id).status.ended:
            raise ConflictError(f"job {job_id} has ended already")
        self.store.jobs.update(job_id, status=JobStatus.CANCELLED)

    def evaluate_rows(self, benchmark_id: str, request: EvaluateRowsRequest) -> EvaluateResponse:
        """Answer each row with nothing."""
        self.asked.append(request)
        find_benchmark(self.store, benchmark_id)
        scores = {name: ScoringResult(score_rows=[], aggregated_results={}) for name in request.scoring_functions}
        return EvaluateResponse(generations=[{"generated_answer": ""} for _ in request.input_rows], scores=scores)

    def rerank(self, request: RerankRequest) -> RerankResponse:
        """Rank, where no weights are needed."""
        return rerank(request, ranker_of(known_model(request.model, CatalogueNames(self.store)), lambda: ""))

    def models(self) -> list[Model]:
        """Return one that writes and one that ranks."""
        return [Model(identifier="tiny", id="tiny"), Model(identifier="bm25", id="bm25", model_type="rerank")]

    def _written(
        self, kind: Any, job_id: str, body: dict[str, Any], datasets: list[str], benchmark_id: str | None = None
    ) -> StoredJob:
        job, _ = self.store.jobs.create(
            StoredJob(
                job_id=job_id,
                kind=kind,
                request=body,
                request_digest=digest(body),
                config="",
                plan_key="",
                status=JobStatus.SCHEDULED,
                created_at=datetime.now(UTC),
                benchmark_id=benchmark_id,
                datasets=datasets,
            )
        )
        return job

"""Jobs: what starts one, and how it is told."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from llsflow.schema.base import Identifier, Record, Text
from llsflow.schema.training import AlgorithmConfig, DPOAlignmentConfig, TrainingConfig


class JobStatus(StrEnum):
    """Where a job is."""

    COMPLETED = "completed"
    IN_PROGRESS = "in_progress"
    FAILED = "failed"
    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class JobProgress(Record):
    """How far a job is."""

    step: str
    """Of the plan: prepare, train, evaluate-base, …"""
    step_index: int
    """From 1."""
    steps: int
    done: int = 0
    """Of `total`, within the step."""
    total: int = 0
    unit: str = ""
    """What `done` and `total` count: steps, rows."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    """Of the step, at the pace so far."""


class Job(Record):
    """An evaluation job."""

    job_id: str
    status: JobStatus
    benchmark_id: str | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    progress: JobProgress | None = None
    metrics: dict[str, float] = {}
    """The newest value of each."""
    error: str | None = None
    """Why it failed, in words."""
    links: dict[str, str] = {}
    """Pages of the run: mlflow, prefect."""


class PostTrainingMetric(Record):
    """Training metrics of a checkpoint."""

    epoch: int
    train_loss: float
    validation_loss: float
    perplexity: float


class Checkpoint(Record):
    """A checkpoint of a training job; its identifier is a model id."""

    identifier: str
    created_at: datetime
    epoch: int
    """From 0."""
    post_training_job_id: str
    path: str
    """Under LLSFLOW_HOME."""
    training_metrics: PostTrainingMetric | None = None
    """Where there is a validation set."""


class PostTrainingJob(Record):
    """A training job, by name."""

    job_uuid: str
    status: JobStatus | None = None
    scheduled_at: datetime | None = None


class PostTrainingJobStatusResponse(Record):
    """Where a training job is."""

    job_uuid: str
    status: JobStatus
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    resources_allocated: dict[str, Any] | None = None
    checkpoints: list[Checkpoint] = []
    progress: JobProgress | None = None
    metrics: dict[str, float] = {}
    """The newest value of each."""
    error: str | None = None
    """Why it failed, in words."""
    links: dict[str, str] = {}
    """Pages of the run: mlflow, prefect."""


class PostTrainingJobArtifactsResponse(Record):
    """What a training job has made so far."""

    job_uuid: str
    checkpoints: list[Checkpoint] = []


class ListPostTrainingJobsResponse(Record):
    """Every training job, the newest first."""

    data: list[PostTrainingJob]


class SupervisedFineTuneRequest(Record):
    """What `POST /v1alpha/post-training/supervised-fine-tune` takes."""

    job_uuid: Identifier
    training_config: TrainingConfig
    hyperparam_search_config: dict[str, Any] = {}
    """Nothing yet: sweeps are not available."""
    logger_config: dict[str, Any] = {}
    """experiment, register_as, register_model: as in conf/tracking; log_every_n_steps: as in conf/recipe."""
    model: Identifier | None = None
    """A model of GET /v1/models; null: the server's default_model."""
    checkpoint_dir: Text | None = None
    """Folder under LLSFLOW_HOME/models that gets a copy of the trained model: a relative path, or one in there."""
    algorithm_config: AlgorithmConfig | None = None


class PreferenceOptimizeRequest(Record):
    """What `POST /v1alpha/post-training/preference-optimize` takes."""

    job_uuid: Identifier
    finetuned_model: Identifier
    algorithm_config: DPOAlignmentConfig
    training_config: TrainingConfig
    hyperparam_search_config: dict[str, Any] = {}
    logger_config: dict[str, Any] = {}


class CancelTrainingJobRequest(Record):
    """What `POST /v1alpha/post-training/job/cancel` takes."""

    job_uuid: Identifier

"""Stored jobs as the API shows them."""

from __future__ import annotations

from pathlib import Path

from llsflow import home
from llsflow.models.catalogue import list_models
from llsflow.schema.jobs import (
    Checkpoint,
    Job,
    JobProgress,
    PostTrainingJob,
    PostTrainingJobStatusResponse,
    PostTrainingMetric,
)
from llsflow.schema.models import Model
from llsflow.store import StoredCheckpoint, StoredJob


def job_view(job: StoredJob) -> Job:
    """Return an evaluation job."""
    return Job(
        job_id=job.job_id,
        status=job.status,
        benchmark_id=job.benchmark_id,
        scheduled_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        progress=_progress(job),
        metrics=job.metrics,
        error=job.error,
        links=job.links,
    )


def training_view(job: StoredJob, checkpoints: list[Checkpoint]) -> PostTrainingJobStatusResponse:
    """Return a training job."""
    return PostTrainingJobStatusResponse(
        job_uuid=job.job_id,
        status=job.status,
        scheduled_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        resources_allocated=job.resources,
        checkpoints=checkpoints,
        progress=_progress(job),
        metrics=job.metrics,
        error=job.error,
        links=job.links,
    )


def listed(job: StoredJob) -> PostTrainingJob:
    """Return a training job as lists show it."""
    return PostTrainingJob(job_uuid=job.job_id, status=job.status, scheduled_at=job.created_at)


def checkpoint_view(checkpoint: StoredCheckpoint) -> Checkpoint:
    """Return a checkpoint with the place where its folder is now."""
    metrics = checkpoint.metrics or {}
    complete = all(isinstance(metrics.get(name), int | float) for name in PostTrainingMetric.model_fields)
    return Checkpoint(
        identifier=checkpoint.identifier,
        created_at=checkpoint.created_at,
        epoch=checkpoint.epoch,
        post_training_job_id=checkpoint.job_id,
        path=str(checkpoint_folder(checkpoint)),
        training_metrics=PostTrainingMetric.model_validate(metrics, extra="ignore") if complete else None,
    )


def checkpoint_folder(checkpoint: StoredCheckpoint) -> Path:
    """Return the folder of a checkpoint, or where it was last."""
    return home.of_step(checkpoint.path) or home.home() / "steps" / checkpoint.path


def checkpoint_model(checkpoint: StoredCheckpoint) -> Model:
    """Return a checkpoint as a model."""
    return Model(
        identifier=checkpoint.identifier,
        id=checkpoint.identifier,
        created=int(checkpoint.created_at.timestamp()),
        metadata={"post_training_job_id": checkpoint.job_id, "step": checkpoint.step, "epoch": checkpoint.epoch},
    )


def conf_models() -> list[Model]:
    """Return the models of conf/model that are complete."""
    return [
        Model(identifier=model.model_id, id=model.model_id, provider_id="conf", model_type=model.model_type)
        for model in list_models()
    ]


def _progress(job: StoredJob) -> JobProgress | None:
    return JobProgress.model_validate(job.progress, extra="ignore") if job.progress else None

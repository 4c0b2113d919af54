"""Training jobs: begun, listed, looked at, cancelled, and what they made."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from llsflow.api.body import Body, ignore, taken, whole_body
from llsflow.api.deps import Server, null, reply, slowly
from llsflow.api.openapi import published
from llsflow.schema.base import Identifier, Record
from llsflow.schema.jobs import (
    CancelTrainingJobRequest,
    ListPostTrainingJobsResponse,
    PostTrainingJob,
    PostTrainingJobArtifactsResponse,
    PostTrainingJobStatusResponse,
    PreferenceOptimizeRequest,
    SupervisedFineTuneRequest,
)
from llsflow.store import JobKind

router = APIRouter()

KIND: JobKind = "post-training"
JOB_UUID = {"job_uuid": {"type": "string", "required": True, "description": "The job."}}


class JobQuery(Record):
    """Which job."""

    job_uuid: Identifier


@router.post(
    "/v1alpha/post-training/supervised-fine-tune",
    **published(PostTrainingJob, takes=SupervisedFineTuneRequest, says="The job, just begun."),
)
async def supervised_fine_tune(
    request: Request, services: Server, body: Annotated[Body, Depends(whole_body)]
) -> Response:
    """Begin a fine-tuning job, and answer at once; the same request again is the same job.

    A bare TrainingConfig trains the server's default model, under a job_uuid that is made up.
    """
    from llsflow.jobs.views import listed

    found = body.take(SupervisedFineTuneRequest, bare="training_config", job_uuid=f"job-{uuid.uuid4()}")
    ignore(request, found.ignored)
    return reply(listed(await slowly(services.jobs.fine_tune, found.record)))


@router.post(
    "/v1alpha/post-training/preference-optimize",
    **published(PostTrainingJob, takes=PreferenceOptimizeRequest, says="The job, just begun."),
)
async def preference_optimize(
    services: Server,
    body: Annotated[PreferenceOptimizeRequest, Depends(taken(PreferenceOptimizeRequest, bare="algorithm_config"))],
) -> Response:
    """Begin a job of preference optimisation, and answer at once; the same request again is the same job."""
    from llsflow.jobs.views import listed

    return reply(listed(await slowly(services.jobs.optimize, body)))


@router.get("/v1alpha/post-training/jobs", **published(ListPostTrainingJobsResponse, says="Every training job."))
def get_training_jobs(services: Server) -> Response:
    """List the training jobs, the newest first."""
    from llsflow.jobs.views import listed

    return reply(ListPostTrainingJobsResponse(data=[listed(job) for job in services.jobs.all(KIND)]))


@router.get(
    "/v1alpha/post-training/job/status",
    **published(PostTrainingJobStatusResponse, query=JOB_UUID, says="The job."),
)
def get_training_job_status(services: Server, query: Annotated[JobQuery, Depends(taken(JobQuery))]) -> Response:
    """Return where a training job is, and what it has made so far."""
    from llsflow.jobs.views import training_view

    job = services.jobs.job(query.job_uuid, KIND)
    return reply(training_view(job, services.jobs.checkpoints(job.job_id)))


@router.get(
    "/v1alpha/post-training/job/artifacts",
    **published(PostTrainingJobArtifactsResponse, query=JOB_UUID, says="Its checkpoints."),
)
def get_training_job_artifacts(services: Server, query: Annotated[JobQuery, Depends(taken(JobQuery))]) -> Response:
    """List what a training job has made so far; the identifier of each checkpoint is a model."""
    checkpoints = services.jobs.checkpoints(query.job_uuid)
    return reply(PostTrainingJobArtifactsResponse(job_uuid=query.job_uuid, checkpoints=checkpoints))


@router.post(
    "/v1alpha/post-training/job/cancel",
    **published(takes=CancelTrainingJobRequest, says="Nothing: it will stop at its next step boundary."),
)
def cancel_training_job(
    services: Server, body: Annotated[CancelTrainingJobRequest, Depends(taken(CancelTrainingJobRequest))]
) -> Response:
    """Have a training job stopped; its checkpoints stay."""
    services.jobs.cancel(body.job_uuid, KIND)
    return null()

"""Evaluations: of a benchmark as a job, and of given rows while the caller waits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from llsflow.api.body import Body, Taken, ignore, taken, whole_body
from llsflow.api.catalogue import find_benchmark, stored_here
from llsflow.api.deps import Server, Services, done, reply, slowly
from llsflow.api.openapi import published
from llsflow.errors import ConfigError, Mistake
from llsflow.schema.benchmarks import EvaluateRowsRequest, RunEvalRequest
from llsflow.schema.jobs import Job
from llsflow.schema.scoring import EvaluateResponse
from llsflow.store import JobKind, decode_row

router = APIRouter()

KIND: JobKind = "eval"
BENCHMARK = "/v1alpha/eval/benchmarks/{benchmark_id:path}"
JOB = f"{BENCHMARK}/jobs/{{job_id}}"

MOST_ROWS = 1000
"""Of a benchmark that one request evaluates: more are a job."""


@router.post(
    f"{BENCHMARK}/jobs",
    **published(Job, takes=RunEvalRequest, says="The job, just begun."),
)
async def run_eval(
    benchmark_id: str,
    request: Request,
    services: Server,
    body: Annotated[RunEvalRequest, Depends(taken(RunEvalRequest, bare="benchmark_config"))],
) -> Response:
    """Begin a job that evaluates a candidate on a benchmark, and answer at once.

    A client that sends this again because it got no answer gets the job that the first time began.
    """
    from llsflow.jobs.views import job_view

    retried = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
    job = await slowly(services.jobs.evaluate, benchmark_id, body.benchmark_config, retried=retried)
    return reply(job_view(job))


@router.post(
    f"{BENCHMARK}/evaluations",
    **published(EvaluateResponse, takes=EvaluateRowsRequest, says="The generations, and their scores."),
)
async def evaluate_rows(
    benchmark_id: str, request: Request, services: Server, body: Annotated[Body, Depends(whole_body)]
) -> Response:
    """Answer and score the given rows; one that cannot be answered is told in its place.

    A bare BenchmarkConfig evaluates the benchmark's own rows with its own scoring functions.
    """
    found = await slowly(_with_own_rows, services, benchmark_id, body)
    ignore(request, found.ignored)
    return reply(await slowly(services.jobs.evaluate_rows, benchmark_id, found.record))


def _with_own_rows(services: Services, benchmark_id: str, body: Body) -> Taken[EvaluateRowsRequest]:
    if not body.is_bare(EvaluateRowsRequest, "benchmark_config"):
        return body.take(EvaluateRowsRequest)
    config = body.take(RunEvalRequest, bare="benchmark_config")
    benchmark = find_benchmark(services.store, benchmark_id)
    stored = stored_here(services, benchmark.dataset_id)
    asked = config.record.benchmark_config.num_examples or stored.num_rows
    if min(asked, stored.num_rows) > MOST_ROWS:
        message = f"{asked} rows are more than one request evaluates, at most {MOST_ROWS}: post to …/jobs instead"
        raise ConfigError([Mistake("num_examples", message)])
    page = services.store.datasets.page(benchmark.dataset_id, 0, asked)
    given = EvaluateRowsRequest(
        benchmark_config=config.record.benchmark_config,
        input_rows=[decode_row(line) for line in page.lines],
        scoring_functions=benchmark.scoring_functions,
    )
    return Taken(given, config.ignored)


@router.get(f"{JOB}/result", **published(EvaluateResponse, says="The generations, and their scores."))
def job_result(benchmark_id: str, job_id: str, services: Server) -> Response:
    """Return what a completed evaluation job found."""
    return Response(services.jobs.result(job_id, benchmark_id), media_type="application/json")


@router.get(JOB, **published(Job, says="The job."))
def job_status(benchmark_id: str, job_id: str, services: Server) -> Response:
    """Return where an evaluation job is."""
    from llsflow.jobs.views import job_view

    return reply(job_view(services.jobs.job(job_id, KIND, benchmark_id)))


@router.delete(JOB, **published(status=204, says="It will stop at its next step boundary."))
def job_cancel(benchmark_id: str, job_id: str, services: Server) -> Response:
    """Have an evaluation job stopped; the rows that were answered stay."""
    services.jobs.cancel(job_id, KIND, benchmark_id)
    return done()

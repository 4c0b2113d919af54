"""Benchmarks: registered, listed, looked at, unregistered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from llsflow.api.body import taken
from llsflow.api.catalogue import LLSFLOW, all_benchmarks, benchmark_of_conf, find_benchmark, stored_here
from llsflow.api.deps import Server, Services, done, null, reply
from llsflow.api.openapi import published
from llsflow.errors import ConfigError, ConflictError, Mistake, NotFoundError
from llsflow.schema.benchmarks import Benchmark, ListBenchmarksResponse, RegisterBenchmarkRequest
from llsflow.schema.datasets import HELD_OUT, DatasetPurpose

router = APIRouter()

EVALUATED = tuple(purpose for purpose in DatasetPurpose if purpose.startswith("eval/"))

TAKEN_WORDS = ("jobs", "evaluations")
"""Parts of the paths below a benchmark: a benchmark_id with one of them could not be told from such a path."""


@router.get("/v1alpha/eval/benchmarks", **published(ListBenchmarksResponse, says="Every benchmark."))
def list_benchmarks(services: Server) -> Response:
    """List the benchmarks that are registered here, and those of conf/benchmark."""
    return reply(ListBenchmarksResponse(data=all_benchmarks(services.store)))


@router.post("/v1alpha/eval/benchmarks", **published(takes=RegisterBenchmarkRequest, says="Nothing: it is registered."))
def register_benchmark(
    services: Server, request: Annotated[RegisterBenchmarkRequest, Depends(taken(RegisterBenchmarkRequest))]
) -> Response:
    """Give a name to a data set and the scoring functions that its answers are scored with."""
    mistakes = [*_name_mistakes(request), *_scoring_mistakes(request.scoring_functions)]
    if request.provider_id not in (None, LLSFLOW):
        mistakes.append(Mistake("provider_id", f"found {request.provider_id!r}, allowed: {LLSFLOW}"))
    if request.provider_benchmark_id not in (None, request.benchmark_id):
        message = f"found {request.provider_benchmark_id!r}, allowed: {request.benchmark_id!r}, the benchmark_id"
        mistakes.append(Mistake("provider_benchmark_id", message))
    if benchmark_of_conf(request.benchmark_id) is not None:
        raise ConflictError(f"benchmark {request.benchmark_id!r} is a file of conf/benchmark: take another name")
    mistakes += _dataset_mistakes(services, request.dataset_id)
    if mistakes:
        raise ConfigError(mistakes)
    services.store.benchmarks.register(
        request.benchmark_id, request.dataset_id, list(request.scoring_functions), request.metadata or {}
    )
    return null()


def _name_mistakes(request: RegisterBenchmarkRequest) -> list[Mistake]:
    taken_words = [word for word in request.benchmark_id.split("/")[1:] if word in TAKEN_WORDS]
    message = f"{request.benchmark_id!r} holds /{'/'.join(taken_words)}, which paths below a benchmark need"
    return [Mistake("benchmark_id", message)] if taken_words else []


def _dataset_mistakes(services: Services, dataset_id: str) -> list[Mistake]:
    if dataset_id.endswith(HELD_OUT):
        message = f"{dataset_id!r}: rows that are held out belong to an experiment; register them as a data set"
        return [Mistake("dataset_id", message)]
    purpose = DatasetPurpose(stored_here(services, dataset_id).purpose)
    if purpose in EVALUATED:
        return []
    return [Mistake("dataset_id", f"{dataset_id!r} has purpose {purpose}, allowed: {', '.join(EVALUATED)}")]


def _scoring_mistakes(names: list[str]) -> list[Mistake]:
    from llsflow.scorers import check_known

    found = [(index, message) for index, name in enumerate(names) for message in check_known(name)]
    mistakes = [Mistake(f"scoring_functions.{index}", message) for index, message in found]
    if len(set(names)) < len(names):
        mistakes.append(Mistake("scoring_functions", "names one twice: name each once"))
    return mistakes


def get_benchmark(benchmark_id: str, services: Server) -> Response:
    """Return a benchmark."""
    return reply(find_benchmark(services.store, benchmark_id))


def unregister_benchmark(benchmark_id: str, services: Server) -> Response:
    """Remove a registered benchmark; the jobs that ran on it keep their results."""
    jobs = [job.job_id for job in services.store.jobs.unended() if job.benchmark_id == benchmark_id]
    if jobs:
        raise ConflictError(f"benchmark {benchmark_id!r} is run by {', '.join(jobs[:5])}: wait for it, or cancel it")
    if not services.store.benchmarks.delete(benchmark_id):
        if benchmark_of_conf(benchmark_id) is not None:
            raise ConflictError(f"benchmark {benchmark_id!r} is a file of conf/benchmark: remove that file")
        raise NotFoundError(f"no benchmark {benchmark_id!r}")
    return done()


# a benchmark_id may hold slashes, so what lies below one has to be asked for first
named = APIRouter()
PATH = "/v1alpha/eval/benchmarks/{benchmark_id:path}"
named.get(PATH, **published(Benchmark, says="The benchmark."))(get_benchmark)
named.delete(PATH, **published(status=204, says="It is gone."))(unregister_benchmark)

"""Data sets: registered, listed, looked at, unregistered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from llsflow.api.aside import store_here
from llsflow.api.body import Body, ignore, whole_body
from llsflow.api.catalogue import SHOWN_ROWS, all_datasets, dataset_view, of_conf, stored_here
from llsflow.api.deps import Server, Services, done, reply, slowly
from llsflow.api.openapi import published
from llsflow.errors import ConflictError, NotFoundError
from llsflow.schema.datasets import (
    Dataset,
    ListDatasetsResponse,
    RegisterDatasetRequest,
    RowsDataSource,
)
from llsflow.schema.server import ServerConfig
from llsflow.store import StoredDataset

router = APIRouter()


@router.get("/v1beta/datasets", **published(ListDatasetsResponse, says="Every data set, without its rows."))
def list_datasets(services: Server) -> Response:
    """List the data sets that are registered here, and those of conf/dataset."""
    return reply(ListDatasetsResponse(data=all_datasets(services.store)))


@router.post("/v1beta/datasets", **published(Dataset, takes=RegisterDatasetRequest, says="The data set."))
async def register_dataset(request: Request, services: Server, body: Annotated[Body, Depends(whole_body)]) -> Response:
    """Read rows, check each against the purpose, and keep them.

    The same content again is the same data set; other content under a name that is taken is a conflict, and changes
    nothing.
    """
    if body.is_large:
        stored, ignored = await slowly(services.aside.run, _take_and_register, body, services.server)
    else:
        taken = body.take(RegisterDatasetRequest)
        stored, ignored = await slowly(_register, services, taken.record), taken.ignored
    ignore(request, ignored)
    return reply(dataset_view(stored, SHOWN_ROWS))


def _register(services: Services, request: RegisterDatasetRequest) -> StoredDataset:
    if not isinstance(request.source, RowsDataSource):
        return services.aside.run(_register_aside, request, services.server)
    from llsflow.data.registration import register

    return register(services.store, request, services.server)


def _register_aside(request: RegisterDatasetRequest, server: ServerConfig) -> StoredDataset:
    from llsflow.data.registration import register

    return register(store_here(), request, server)


def _take_and_register(body: Body, server: ServerConfig) -> tuple[StoredDataset, tuple[str, ...]]:
    taken = body.take(RegisterDatasetRequest)
    return _register_aside(taken.record, server), taken.ignored


@router.get("/v1beta/datasets/{dataset_id:path}", **published(Dataset, says="The data set."))
def get_dataset(dataset_id: str, services: Server) -> Response:
    """Return a data set; of rows given inline, the first 100: iterrows has them all."""
    return reply(dataset_view(stored_here(services, dataset_id), SHOWN_ROWS))


@router.delete("/v1beta/datasets/{dataset_id:path}", **published(status=204, says="It is gone."))
def unregister_dataset(dataset_id: str, services: Server) -> Response:
    """Remove a registered data set with its rows."""
    if of_conf(dataset_id):
        raise ConflictError(f"data set {dataset_id!r} is a file of conf/dataset: remove that file")
    readers = [job.job_id for job in services.store.jobs.unended() if dataset_id in job.datasets]
    if readers:
        raise ConflictError(f"data set {dataset_id!r} is read by {_named('job', readers)}: wait for it, or cancel it")
    users = [known.benchmark_id for known in services.store.benchmarks.list() if known.dataset_id == dataset_id]
    if users:
        raise ConflictError(f"data set {dataset_id!r} is used by {_named('benchmark', users)}: unregister it first")
    if not services.store.datasets.delete(dataset_id):
        raise NotFoundError(f"no data set {dataset_id!r}")
    return done()


def _named(noun: str, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{noun} {shown}"

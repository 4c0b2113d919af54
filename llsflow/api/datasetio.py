"""The rows of a data set: read by pages, added at the end."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import field_validator

from llsflow.api.aside import store_here
from llsflow.api.body import Body, Taken, ignore, taken, whole_body
from llsflow.api.catalogue import dataset_view, of_conf, stored_here
from llsflow.api.deps import Server, reply, slowly
from llsflow.api.openapi import published
from llsflow.errors import ConflictError
from llsflow.schema.base import Int, NonNegativeInt, Record
from llsflow.schema.datasets import AppendRowsRequest, Dataset
from llsflow.schema.pages import PaginatedResponse
from llsflow.store import Store, StoredDataset

router = APIRouter()

MOST_BYTES = 64 << 20
"""Of rows in one page: a page of long rows ends earlier, and says that there is more."""


class PageQuery(Record):
    """Which rows."""

    start_index: NonNegativeInt | None = 0
    limit: Int | None = None

    @field_validator("limit")
    @classmethod
    def _some_rows(cls, value: int | None) -> int | None:
        if value is not None and value < 1 and value != -1:
            raise ValueError(f"found {value}, allowed: at least 1, or -1 for as many as the server gives at once")
        return value


PAGE = {
    "start_index": {"type": "integer", "minimum": 0, "default": 0, "description": "Index of the first row, from 0."},
    "limit": {
        "type": "integer",
        "minimum": -1,
        "default": -1,
        "description": "Most rows; -1 or none: as many as the server gives at once.",
    },
}


@router.get(
    "/v1beta/datasetio/iterrows/{dataset_id:path}",
    **published(PaginatedResponse, query=PAGE, says="A page of rows, and where the next page is."),
)
def iterrows(
    dataset_id: str, request: Request, services: Server, page: Annotated[PageQuery, Depends(taken(PageQuery))]
) -> Response:
    """Return rows in their order, exactly as they came in.

    A start beyond the end gives no rows. Rows that are appended while a data set is read are read too.
    """
    start = page.start_index or 0
    most = services.server.max_page_rows
    limit = most if page.limit in (None, -1) else min(page.limit or most, most)
    if of_conf(dataset_id):
        stored_here(services, dataset_id)
    found = services.store.datasets.page(dataset_id, start, limit, max_bytes=MOST_BYTES)
    end = start + found.num_rows
    tail = b'],"has_more":false,"url":null}'
    if end < found.total:
        asked = "" if page.limit is None else f"&limit={page.limit}"
        place = quote(request.scope["path"], safe="/:")
        tail = f'],"has_more":true,"url":"{place}?start_index={end}{asked}"}}'.encode()
    # rows are kept as the JSON that goes out: nothing is parsed or written anew
    content = b"".join((b'{"data":[', found.payload.replace(b"\n", b","), tail))
    return Response(content, media_type="application/json")


@router.post(
    "/v1beta/datasetio/append-rows/{dataset_id:path}",
    **published(Dataset, takes=AppendRowsRequest, says="The data set as it is now, without rows."),
)
async def append_rows(
    dataset_id: str, request: Request, services: Server, body: Annotated[Body, Depends(whole_body)]
) -> Response:
    """Add rows at the end: all of them or none, on disk when this answers."""
    if of_conf(dataset_id):
        raise ConflictError(f"data set {dataset_id!r} is a file of conf/dataset: rows are added to that file")
    if body.is_large:
        stored, ignored = await slowly(services.aside.run, _append_aside, dataset_id, body)
    else:
        stored, ignored = await run_in_threadpool(_append, services.store, dataset_id, body)
    ignore(request, ignored)
    return reply(dataset_view(stored, rows=0))


def _append(store: Store, dataset_id: str, body: Body) -> tuple[StoredDataset, tuple[str, ...]]:
    from llsflow.data.registration import append

    request: Taken[AppendRowsRequest] = body.take(AppendRowsRequest)
    return append(store, dataset_id, request.record.rows), request.ignored


def _append_aside(dataset_id: str, body: Body) -> tuple[StoredDataset, tuple[str, ...]]:
    return _append(store_here(), dataset_id, body)

"""From an HTTP request to the engine and back: whole answers and streams, whose readers may go away at any time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from llsflow.errors import LlsflowError, NotFoundError
from llsflow.models.bm25 import bm25
from llsflow.models.constrain import check_format
from llsflow.models.lanes import A, Answer, NotANumber, NotEnoughMemory, Ticket, Waiting
from llsflow.models.protocol import (
    NOT_A_NUMBER,
    OUT_OF_MEMORY,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    RankingRequest,
    call_schema_of,
    conversation_of,
    format_of,
    sampling_of,
)
from llsflow.models.ranking_lane import EmbeddingTicket, RankTicket
from llsflow.models.replies import LAST_EVENT, Reply, embedding_body, error_body, event, finish_of, ranking_body
from llsflow.models.responses import Said
from llsflow.models.serving import Engine
from llsflow.schema.models import ModelConfig

Failure = tuple[int, str, str | None]
"""HTTP status, and the protocol's type and code."""

READER_GONE = 499
"""nginx's code for a client that went away: nobody reads it."""


def ticket_of(asked: ChatRequest | CompletionRequest, model: ModelConfig) -> Ticket:
    """Return what the engine is handed.

    Raises:
        ValueError: messages that no chat template takes, or a format that cannot be kept to.
    """
    wanted = format_of(asked)
    if wanted and (mistakes := check_format(wanted)):
        raise ValueError("; ".join(f"response_format: {mistake}" for mistake in mistakes))
    seed = secrets.randbits(31) if asked.seed is None else asked.seed
    if isinstance(asked, CompletionRequest):
        return Ticket(model, asked.prompt, sampling_of(asked), seed, wanted)
    call = call_schema_of(asked)
    conversation = conversation_of(asked)
    one = asked.parallel_tool_calls is False
    sampling = sampling_of(asked)
    return Ticket(model, conversation, sampling, seed, call or wanted, must_call=call is not None, one_call=one)


async def answered(engine: Engine, request: Request, ticket: Ticket, reply: Reply) -> Response:
    """Return the whole answer.

    Raises:
        ValueError, LlsflowError: why there is none.
    """
    return await _whole(engine, request, ticket, reply.whole)


async def ranked(engine: Engine, request: Request, ticket: RankTicket, asked: RankingRequest) -> Response:
    """Return the order of the documents.

    Raises:
        LlsflowError: why there is none.
    """
    if ticket.model.builtin:
        scores = await asyncio.to_thread(bm25, asked.query, asked.texts)
        return JSONResponse(ranking_body(asked, scores))
    return await _whole(engine, request, ticket, lambda scores: ranking_body(asked, scores))


async def embedded(engine: Engine, request: Request, ticket: EmbeddingTicket, asked: EmbeddingRequest) -> Response:
    """Return the vectors of texts.

    Raises:
        LlsflowError: why there are none.
    """
    return await _whole(engine, request, ticket, lambda vectors: embedding_body(asked, vectors))


async def _whole(engine: Engine, request: Request, ticket: Waiting[A], say: Callable[[A], dict[str, Any]]) -> Response:
    engine.submit(ticket)
    future = asyncio.wrap_future(ticket.answered)
    if not await _first(request, future):
        ticket.drop()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Response(status_code=READER_GONE)
    return JSONResponse(say(future.result()))


async def streamed(engine: Engine, request: Request, ticket: Ticket, reply: Reply) -> Response:
    """Return the answer as server-sent events, as it comes; what fails before the first of them is told plainly.

    Raises:
        ValueError, LlsflowError: why there is no answer.
    """
    loop = asyncio.get_running_loop()
    came: asyncio.Queue[Said | None] = asyncio.Queue()

    def tell(said: Said | None) -> None:
        loop.call_soon_threadsafe(came.put_nowait, said)

    ticket.on_said = tell
    ticket.answered.add_done_callback(lambda _: tell(None))
    engine.submit(ticket)
    first = asyncio.ensure_future(came.get())
    if not await _first(request, first):
        ticket.drop()
        first.cancel()
        return Response(status_code=READER_GONE)
    if first.result() is None:
        ticket.answered.result()
    return StreamingResponse(_events(ticket, reply, came, first.result()), media_type="text/event-stream")


async def _events(
    ticket: Ticket, reply: Reply, came: asyncio.Queue[Said | None], said: Said | None
) -> AsyncIterator[bytes]:
    try:
        first = True
        while said is not None:
            yield reply.part(said, first=first)
            first, said = False, await came.get()
        try:
            answer: Answer = ticket.answered.result()
        except (ValueError, LlsflowError) as error:
            _, kind, code = failure(error)
            yield event(error_body(str(error), kind, code))
            return
        yield reply.part(finish=finish_of(answer), first=first)
        if reply.counts:
            yield reply.count(answer)
        yield LAST_EVENT
    finally:
        ticket.drop()  # of one that is answered this means nothing


async def _first(request: Request, wanted: asyncio.Future[Any]) -> bool:
    """Return whether it came before the client went away."""
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({wanted, gone}, return_when=asyncio.FIRST_COMPLETED)
        return wanted.done()
    finally:
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def failure(error: Exception) -> Failure:
    """Return how an error is told."""
    match error:
        case HTTPException(status_code=status):
            return status, "invalid_request_error", None
        case NotFoundError():
            return 404, "invalid_request_error", "model_not_found"
        case NotEnoughMemory():
            return 503, "server_error", OUT_OF_MEMORY
        case NotANumber():
            return 500, "server_error", NOT_A_NUMBER
        case LlsflowError():
            return 503, "server_error", None
        case _:
            return 400, "invalid_request_error", None

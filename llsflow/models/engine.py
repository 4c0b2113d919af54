"""The embedded inference engine over HTTP: the OpenAI protocol, on a loopback address, in a process of its own.

`python -m llsflow.models.engine --port 8322` answers /health before torch is imported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from llsflow.errors import LlsflowError, NotFoundError
from llsflow.garbage import look_seldom
from llsflow.models.answering import answered, embedded, failure, ranked, streamed, ticket_of
from llsflow.models.catalogue import find_model, known_models, ready_folder
from llsflow.models.protocol import ChatRequest, CompletionRequest, EmbeddingRequest, RankingRequest, read_request
from llsflow.models.ranking_lane import EmbeddingTicket, RankTicket
from llsflow.models.replies import Reply, error_body
from llsflow.models.rerankers import is_cross_encoder
from llsflow.models.serving import Engine
from llsflow.schema.kinds import or_known
from llsflow.schema.models import ModelConfig

HERE = "127.0.0.1"


def create_app(engine: Engine, config_dir: Path | None = None, only: ModelConfig | None = None) -> FastAPI:
    """Return the app over an engine that was started or will be; `only`: for one model, whatever the catalogue has."""
    app = FastAPI(openapi_url=None)
    # a page of the open web that has its name point here must not reach the models
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HERE, "localhost"])
    looking_up = ThreadPoolExecutor(2, thread_name_prefix="catalogue")

    async def in_thread(call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(looking_up, call)

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse(engine.health())

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        known = [only.model_id] if only else await in_thread(lambda: known_models(config_dir=config_dir))
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "llsflow"} for name in known]
        return JSONResponse({"object": "list", "data": data})

    async def answer(request: Request, kind: type[ChatRequest | CompletionRequest]) -> Response:
        asked = read_request(_json(await request.body()), kind)
        served = only if only and asked.model == only.model_id else None
        model = served or await in_thread(lambda: _known(asked.model, config_dir))
        if model.model_type != "llm":
            raise ValueError(f"{asked.model!r} ranks and writes no text: ask it at /v1/rerank")
        ticket, reply = await in_thread(lambda: ticket_of(asked, model)), Reply(asked)
        return await (streamed if asked.stream else answered)(engine, request, ticket, reply)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, ChatRequest)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, CompletionRequest)

    _add_rankers(app, engine, in_thread, config_dir)
    _tell_errors(app)
    return app


def _add_rankers(
    app: FastAPI, engine: Engine, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]], config_dir: Path | None
) -> None:
    @app.post("/v1/rerank")
    async def rerank(request: Request) -> Response:
        asked = read_request(_json(await request.body()), RankingRequest)
        model = await in_thread(lambda: _known(asked.model, config_dir))
        if model.model_type != "rerank":
            raise ValueError(f"{asked.model!r} writes text and ranks nothing: take a model of model_type rerank")
        return await ranked(engine, request, RankTicket(model, asked.texts, asked.query), asked)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        asked = read_request(_json(await request.body()), EmbeddingRequest)
        model = await in_thread(lambda: _known(asked.model, config_dir))
        if not await in_thread(lambda: makes_vectors(model)):
            raise ValueError(f"{asked.model!r} makes no vectors: take an embedding model, of model_type rerank")
        return await embedded(engine, request, EmbeddingTicket(model, asked.texts), asked)


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(ValueError)
    @app.exception_handler(LlsflowError)
    @app.exception_handler(HTTPException)
    async def told(_: Request, error: Exception) -> JSONResponse:
        status, kind, code = failure(error)
        message = str(error.detail) if isinstance(error, HTTPException) else str(error)
        headers = {"Retry-After": "5"} if status == 503 else None
        return JSONResponse(error_body(message, kind, code), status, headers)

    @app.exception_handler(Exception)
    async def fault(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse(error_body("a fault of the inference engine: see its log", "server_error"), 500)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from None


def _known(model_id: str, config_dir: Path | None) -> ModelConfig:
    model = find_model(model_id, config_dir=config_dir)
    if model is None:
        known = known_models(config_dir=config_dir)
        raise NotFoundError(f"no model {model_id!r}{or_known(model_id, known)}")
    return model


def makes_vectors(model: ModelConfig) -> bool:
    """Return whether it is an embedding model."""
    return model.model_type == "rerank" and not model.builtin and not is_cross_encoder(ready_folder(model))


@contextmanager
def serving_one(model: ModelConfig, *, batch_size: int, device: str, dtype: str) -> Iterator[str]:
    """Yield the address of an engine in this process that serves one model."""
    engine = Engine(max_models=1, batch_size=batch_size, device=device, dtype=dtype)
    engine.start()
    with listen(0) as listener:
        config = uvicorn.Config(
            create_app(engine, only=model), log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="engine-http", daemon=True)
        thread.start()
        try:
            yield f"http://{HERE}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            engine.close()


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only."""
    # the protocol is named because asyncio turns Nagle's delay off only where it is: 40 ms an answer
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HERE, port))
    listener.listen(1024)
    return listener


def main(words: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    look_seldom()
    parser = argparse.ArgumentParser(prog="python -m llsflow.models.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto: the best there is")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of the weights")
    parser.add_argument("--max-models", type=int, default=2, help="in memory at once")
    parser.add_argument("--batch-size", type=int, default=32, help="requests that are generated together")
    parser.add_argument("--idle-seconds", type=float, default=0.0, help="after which a model leaves; 0: it stays")
    parser.add_argument("--config-dir", type=Path, help="folder with YAML files over the packaged ones")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    engine = Engine(
        max_models=options.max_models,
        batch_size=options.batch_size,
        device=options.device,
        dtype=options.dtype,
        idle_seconds=options.idle_seconds,
    )
    with listen(options.port) as listener:
        sys.stdout.write(f"http://{HERE}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        app = create_app(engine, options.config_dir)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))

        def stop(*_: object) -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)  # uvicorn raises what it caught once more when it is done: not to our death
        engine.start()
        server.run(sockets=[listener])
    if not engine.close():
        os._exit(0)  # a thread in the middle of an import or a long step: nothing of it needs to be kept


if __name__ == "__main__":
    main()

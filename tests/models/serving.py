"""An engine that is served over HTTP within a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from llsflow.data.conversation import Conversation
from llsflow.models.engine import create_app
from llsflow.models.remote import RemoteModel
from llsflow.models.serving import Engine
from llsflow.schema.sampling import SamplingParams
from tests.patience import PATIENCE_SECONDS


@contextmanager
def served(engine: Engine, config_dir: Path | None = None) -> Iterator[httpx.Client]:
    """Yield a client of the engine's address."""
    config = uvicorn.Config(create_app(engine, config_dir), port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        engine.close()


def chat(
    url: str,
    model: str,
    conversation: Conversation,
    sampling: SamplingParams,
    *,
    seed: int | None = None,
    timeout: float = PATIENCE_SECONDS,
) -> str:
    """Return the engine's answer, asked as the API's process asks it.

    Raises:
        ValueError: it refuses this request, and why.
    """
    remote = RemoteModel.of_engine(url, model, at_once=32, timeout_seconds=timeout)
    made = remote.answer({0: conversation}, sampling, seed=seed)[0]
    if made.error:
        raise ValueError(made.error)
    return made.text


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Return the condition's value once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
    return value

"""A served API: a real store, real HTTP, and jobs that are only written down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from llama_stack_client import LlamaStackClient

from llsflow.agents.service import AgentsService
from llsflow.api.app import create_app
from llsflow.api.deps import Services
from llsflow.errors import UnavailableError
from llsflow.jobs.names import CatalogueNames
from llsflow.jobs.requests import known_model
from llsflow.schema.server import ServerConfig
from llsflow.store import Store
from tests.api.jobs import WrittenJobs
from tests.api.talks import ANSWERS, says
from tests.patience import PATIENCE_SECONDS
from tests.scripted import Scripted, scripted


@dataclass
class Served:
    """A server on a free port, in a thread."""

    services: Services
    url: str
    http: httpx.Client

    @cached_property
    def client(self) -> LlamaStackClient:
        """The official client."""
        return LlamaStackClient(base_url=self.url, max_retries=0)

    def close(self) -> None:
        """Close the official client, where it was used: the collector would warn of its connections."""
        if "client" in vars(self):
            self.client.close()


def serve(services: Services, **headers: str) -> Iterator[Served]:
    """Serve until the generator is closed."""
    with (
        listening(create_app(services)) as url,
        httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as http,
        closing(Served(services, url, http)) as found,
    ):
        yield found


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Yield where an application answers."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[FastAPI, str]]:
    """One application for every test that needs no server configuration of its own."""
    app = create_app(Services(ServerConfig(port=0), store=None, jobs=None, agents=None))  # type: ignore[arg-type]
    with listening(app) as url:
        yield app, url


def no_engine() -> str:
    """Return where the inference engine answers: nowhere."""
    raise UnavailableError("no inference engine here")


@pytest.fixture
def services(llsflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """A store of its own, jobs that are only written down."""
    # no conf/ of the checkout
    monkeypatch.chdir(llsflow_home.parent)
    store = Store.open()
    agents = AgentsService(store, lambda name: known_model(name, CatalogueNames(store)), engine_url=no_engine)
    found = Services(ServerConfig(port=0), store, WrittenJobs(store), agents)
    yield found
    found.close()
    store.close()


@pytest.fixture
def served(services: Services, shared: tuple[FastAPI, str]) -> Iterator[Served]:
    """The API, over the services of this test."""
    app, url = shared
    app.state.services = services
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http, closing(Served(services, url, http)) as found:
        yield found


@pytest.fixture
def http(served: Served) -> httpx.Client:
    """A client of plain HTTP."""
    return served.http


ROWS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(10)]


def register(
    http: httpx.Client, dataset_id: str = "sums", rows: list[dict[str, object]] | None = None
) -> httpx.Response:
    """Register rows of question and answer."""
    body = {
        "dataset_id": dataset_id,
        "purpose": "eval/question-answer",
        "source": {"type": "rows", "rows": ROWS if rows is None else rows},
    }
    return http.post("/v1beta/datasets", json=body)


@pytest.fixture
def script(served: Served) -> Iterator[Scripted]:
    """A model behind an endpoint, under the name `there`."""
    with scripted(says(ANSWERS)) as found:
        folder = Path("conf/model")
        folder.mkdir(parents=True)
        (folder / "there.yaml").write_text(f"model_id: there\nendpoint:\n  base_url: {found.url}\n  retries: 0\n")
        yield found

"""`llsflow serve`: the API, and beside it everything that one machine needs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from logging.handlers import RotatingFileHandler
from types import FrameType
from typing import TYPE_CHECKING, Any

from llsflow import home
from llsflow.cli.joined import Keeper, new_machine
from llsflow.config import load_server
from llsflow.errors import ConflictError, UnavailableError
from llsflow.schema.server import ServerConfig

if TYPE_CHECKING:
    from llsflow.api.deps import Services
    from llsflow.plan import Submitter
    from llsflow.schema.health import HealthPart
    from llsflow.store import Store

TRACES = "agents"
"""MLflow experiment of the traces of turns."""

LOG_BYTES = 4_000_000
"""Of serve.log, before it is put aside in the place of the one before."""

TITLES = {"prefect": "Prefect", "worker": "Worker", "engine": "Engine", "mlflow": "MLflow"}


def command(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    server = load_server(options.words, config_dir=options.config_dir)
    from llsflow.api.access import check_may_listen

    check_may_listen(server)
    # processes that we start have another working folder, and need the same home and store; the address of a
    # store may hold a password, so that it is no word of a command line
    os.environ["LLSFLOW_HOME"] = str(home.ensure_writable())
    if server.store:
        os.environ["LLSFLOW_STORE_URL"] = server.store
    with home.alone("serve") as alone:
        if not alone:
            known = home.read_json(_record()) or {}
            raise ConflictError(f"a server of this LLSFLOW_HOME runs already: {known.get('url', home.home())}")
        with _listening(server) as listener, _logged(), _Signals() as signals:
            _serve(server, listener, signals)
    return 0


def _record() -> Any:
    return home.home() / "serve.json"


def _serve(server: ServerConfig, listener: socket.socket, signals: _Signals) -> None:
    import uvicorn

    from llsflow.api.app import create_app
    from llsflow.jobs.compiling import settle_record
    from llsflow.jobs.reconcile import Reconciler
    from llsflow.store import Store

    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    store = Store.open()

    def returned(name: str) -> None:
        if name in ("prefect", "worker"):
            reconciler.doubt()

    submitter, keeper = new_machine(server, _told, returned)
    services = _services(server, store, submitter, keeper)
    reconciler = Reconciler(
        store, submitter, server.jobs, settle_record=lambda job_id: services.aside.run(settle_record, job_id)
    )
    app = create_app(services)
    home.write_json(_record(), {"url": url, "pid": os.getpid()})
    print(f"{'API':<8}  {url}  (documentation: {url}/docs)", flush=True)
    services.warm()
    keeper.start()
    reconciler.start()
    running = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=10)
    )
    try:
        signals.phase = "serving"
        running.run(sockets=[listener])
    finally:
        signals.phase = "stopping"
        print("stopping; jobs under way go on with the next `llsflow serve` (Ctrl-C again to stop at once)", flush=True)
        _record().unlink(missing_ok=True)
        reconciler.close()
        keeper.stop()
        services.close()
        store.close()


def _services(server: ServerConfig, store: Store, submitter: Submitter, keeper: Keeper) -> Services:
    from llsflow.agents.service import AgentsService
    from llsflow.api.aside import Aside
    from llsflow.api.catalogue import find_benchmark
    from llsflow.api.deps import Services
    from llsflow.api.traces import TraceShipper
    from llsflow.jobs.compiling import compile_job
    from llsflow.jobs.names import CatalogueNames
    from llsflow.jobs.requests import known_model
    from llsflow.jobs.service import JobsService

    aside, names = Aside(), CatalogueNames(store)

    def engine_url() -> str:
        url = keeper.url("engine")
        if url is None:
            raise UnavailableError("the inference engine is starting, or it is down: see /v1/health, and try again")
        return url

    jobs = JobsService(
        store=store,
        server=server,
        submitter=submitter,
        names=names,
        compile=lambda experiment: aside.run(compile_job, experiment),
        benchmark=lambda benchmark_id: find_benchmark(store, benchmark_id),
        engine_url=engine_url,
    )
    traces = TraceShipper(TRACES) if server.agents.traces else None
    agents = AgentsService(
        store,
        model=lambda name: known_model(name, names),
        engine_url=engine_url,
        fetching=server.fetch,
        settings=server.agents,
        trace=traces.take if traces else None,
    )
    health = partial(_health, keeper)
    return Services(server=server, store=store, jobs=jobs, agents=agents, traces=traces, aside=aside, health=health)


def _health(keeper: Keeper) -> Mapping[str, HealthPart]:
    from llsflow.schema.health import HealthPart, PartState

    states = {"ready": PartState.OK, "down": PartState.DOWN}
    parts = {}
    for name, found in keeper.health().items():
        told = {**found, "state": states.get(found["state"], PartState.STARTING)}
        parts[name] = HealthPart.model_validate(told)
    return parts


def _told(name: str, url: str) -> None:
    if url and name in TITLES:
        print(f"{TITLES[name]:<8}  {url}", flush=True)


@contextmanager
def _listening(server: ServerConfig) -> Iterator[socket.socket]:
    """Yield a socket that listens where the configuration says.

    Raises:
        UnavailableError: another program listens there, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # the protocol is named because asyncio turns Nagle's delay off only where it is: 40 ms an answer
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((server.host, server.port))
        except OSError as error:
            why = error.strerror or str(error)
            raise UnavailableError(
                f"cannot listen on {server.host}:{server.port}: {why}; choose another with server.port=8322"
            ) from error
        listener.listen(512)
        listener.set_inheritable(False)
        yield listener


@contextmanager
def _logged() -> Iterator[None]:
    """Keep what is logged, tracebacks too, in LLSFLOW_HOME/logs/serve.log."""
    folder = home.home() / "logs"
    with home.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(folder / "serve.log", maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s - %(message)s"))
    loggers = [logging.getLogger(name) for name in ("llsflow", "uvicorn")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


class _Signals:
    """Ctrl-C and SIGTERM: uvicorn takes them while it serves and raises them once more at its end."""

    def __init__(self) -> None:
        self.phase = "starting"
        self._before: dict[int, Callable[..., Any] | int | None] = {}

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.phase != "serving":
            raise KeyboardInterrupt

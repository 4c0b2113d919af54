"""The worker of a server: `python -m flows.worker` runs jobs and schedules as processes of this machine.

Once it takes work it says so in one line, and in the ready file. SIGTERM ends it: runs stop at their next step
boundary first, and go on with the next worker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llsflow.errors import LlsflowError, UnavailableError
from llsflow.garbage import look_seldom
from llsflow.home import home, write_aside

from . import provision
from .engine import WORKER
from .rest import PrefectApi
from .runner import ledger_of
from .stack import LocalPrefect

if TYPE_CHECKING:
    from prefect.workers.process import ProcessWorker

logger = logging.getLogger("llsflow.flows")

PATIENCE_SECONDS = 25.0
"""For runs to stop at their boundary once the worker is told to end: a little more than their own hard end."""

_SETTLE_SECONDS = 5.0
"""Between two looks for runs whose process is gone, and for what jobs need on the server."""

_STUCK_SECONDS = 180.0
"""A run that a worker took so long ago, and that has not begun, has lost that worker."""

_RETRY_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or Ctrl-C; return the exit code."""
    look_seldom()
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s - %(message)s")
    # Of every request that httpx makes it would tell, twice a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Relative to this folder, which is not that of every run.
    os.environ["LLSFLOW_HOME"] = str(home())
    os.environ[WORKER] = str(os.getpid())
    prefect = LocalPrefect()
    try:
        prefect.prepare()
        provide(PrefectApi(prefect), options.pool, options.wait)
    except LlsflowError as error:
        logger.error("%s", error)
        return error.exit_code
    os.environ.update(prefect.environment() | provision.worker_environment())
    return asyncio.run(_work(options, prefect))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.worker", description="Run jobs and schedules.")
    parser.add_argument("--pool", default="llsflow", help="work pool, made where it is not there")
    parser.add_argument("--limit", type=int, default=2, help="most runs at the same time")
    parser.add_argument("--ready", type=Path, help="file to write once runs are taken")
    parser.add_argument("--wait", type=float, default=180.0, help="seconds for the Prefect server to answer")
    return parser.parse_args(arguments)


def provide(api: PrefectApi, pool: str, wait_seconds: float = 60.0) -> None:
    """Make on the server what jobs need, or bring it up to date.

    Raises:
        UnavailableError: it does not answer for so long.
        RefusedError: it will not have it.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            provision.ensure_jobs_deployment(api, pool)
            provision.ensure_heartbeat_automation(api)
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise
            logger.info("waiting for Prefect: %s", error)
            time.sleep(_RETRY_SECONDS)
        else:
            return


async def _work(options: argparse.Namespace, prefect: LocalPrefect) -> int:
    worker = _worker(options.pool, options.limit)
    working = asyncio.create_task(worker.start(printer=lambda words: _started(words, options.ready)))
    settling = asyncio.create_task(_settle(prefect, options.pool))
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        await worker.end_runs(PATIENCE_SECONDS)
    for task in (working, settling, waiting):
        task.cancel()
    ends = await asyncio.gather(working, settling, waiting, return_exceptions=True)
    if isinstance(ends[0], Exception):
        logger.error("the worker ended: %s", ends[0], exc_info=ends[0])
        return 1
    logger.info("worker ended")
    return 0


def _started(words: str, ready: Path | None) -> None:
    logger.info("%s", words)
    if ready is not None and "started" in words:
        write_aside(ready, f"{os.getpid()}\n")


async def _settle(prefect: LocalPrefect, pool: str) -> None:
    """Tell the server of runs whose process was killed with an earlier worker, sooner than their heartbeat does.

    One that lost its database gets anew what jobs need.
    """
    from prefect.client.orchestration import get_client

    api = PrefectApi(prefect)

    def once() -> None:
        if not provision.has_jobs_deployment(api, pool):
            logger.warning("Prefect has lost the deployment of jobs: it is made again")
            provide(api, pool)
        for lost in give_back(api, pool):
            logger.info("flow run %s had been taken by a worker that is gone; it waits again", lost)
        with get_client(sync_client=True) as client:
            for crashed in ledger_of(prefect).settle(client):
                logger.info("flow run %s had crashed; Prefect knows it now", crashed)

    while True:
        with contextlib.suppress(Exception):  # a server that is away is asked again
            await asyncio.to_thread(once)
        await asyncio.sleep(_SETTLE_SECONDS)


def give_back(api: PrefectApi, pool: str, stuck_seconds: float = _STUCK_SECONDS) -> list[str]:
    """Have runs wait again that a worker took and did not live to start; return their ids; raises as `provide` does."""
    now = datetime.now(UTC)
    taken = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING"]}}},
        "work_pools": {"name": {"any_": [pool]}},
        "limit": 200,
    }
    found = []
    for run in api.post("/flow_runs/filter", taken):
        if now - datetime.fromisoformat(run["state"]["timestamp"]) > timedelta(seconds=stuck_seconds):
            waits = {
                "type": "SCHEDULED",
                "name": "AwaitingRetry",
                "message": "The worker that took it ended before its first step",
                "state_details": {"scheduled_time": now.isoformat()},
            }
            api.post(f"/flow_runs/{run['id']}/set_state", {"state": waits, "force": True})
            found.append(str(run["id"]))
    return found


def _worker(pool: str, limit: int) -> Any:
    """Return Prefect's process worker with an end that runs survive."""
    from prefect.workers.process import ProcessWorker

    return _gentle(ProcessWorker)(work_pool_name=pool, limit=limit, name=f"llsflow-{os.getpid()}")


def _gentle(base: type[ProcessWorker]) -> Any:
    class GentleWorker(base):  # type: ignore[misc, valid-type]
        """Ends its runs at their step boundary before it ends itself."""

        # Beside Prefect's own in its registry; the pool's type stays "process".
        __dispatch_key__ = "llsflow-process"

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._ending = False
            self._pids: set[int] = set()

        async def get_and_submit_flow_runs(self) -> Any:
            return [] if self._ending else await super().get_and_submit_flow_runs()

        async def run(self, flow_run: Any, configuration: Any, task_status: Any = None) -> Any:
            noted = _Noted(task_status, self._pids)
            try:
                return await super().run(flow_run, configuration, noted)
            finally:
                noted.ended()

        async def end_runs(self, patience_seconds: float) -> None:
            """Take no more work, and have every run stop at its next step boundary."""
            self._ending = True
            for pid in self._pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + patience_seconds
            while self._pids and time.monotonic() < deadline:
                await asyncio.sleep(0.05)

    return GentleWorker


class _Noted:
    """The status of a task that remembers the process it is told of."""

    def __init__(self, status: Any, pids: set[int]) -> None:
        self._status, self._pids = status, pids
        self._pid: int | None = None

    def started(self, pid: int) -> None:
        """The process runs."""
        self._pid = pid
        self._pids.add(pid)
        if self._status is not None:
            self._status.started(pid)

    def ended(self) -> None:
        """It is gone."""
        if self._pid is not None:
            self._pids.discard(self._pid)


if __name__ == "__main__":
    sys.exit(main())

"""Who runs which flow run: so that a run whose process was killed does not stay Running for ever."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llsflow.home import read_json, storage_errors, write_json

logger = logging.getLogger("llsflow.flows")

if TYPE_CHECKING:
    from filelock import FileLock
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State


class Ledger:
    """One small file for each flow run under way, locked by the process that runs it.

    The kernel gives a lock back when its process ends, however it ends: a file that can be locked is a
    dead run's. A process id would not do, it is another's after a restart of the container.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server
        """Which Prefect the runs are known to: "local", or the address of the API."""

    @contextlib.contextmanager
    def running(self, flow_run_id: UUID, plan_key: str) -> Iterator[None]:
        """Write that this process runs the flow run, for as long as the context lasts."""
        entry = self.folder / f"{flow_run_id}.json"
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _lock(entry).acquire():
            write_json(entry, {"plan": plan_key, "server": self.server, "pid": os.getpid(), "ended": None})
            yield

    def forget(self, flow_run_id: UUID) -> None:
        """Forget a run that this process runs: the server knows how it ended."""
        _forget(self.folder / f"{flow_run_id}.json")

    def ended(self, flow_run_id: UUID, state: State[Any], *, acknowledged: bool) -> None:
        """Write how the run ended; once the server knows it too, there is nothing left to remember."""
        entry = self.folder / f"{flow_run_id}.json"
        if acknowledged:
            _forget(entry)
        elif known := read_json(entry):
            write_json(entry, {**known, "ended": {"type": state.type.value, "message": state.message}})

    def settle(self, client: SyncPrefectClient) -> list[UUID]:
        """Tell the server the end of every run whose process is gone; return those that had crashed."""
        from prefect.exceptions import PrefectException, PrefectHTTPStatusError

        crashed = []
        for entry in sorted(self.folder.glob("*.json")):
            lock = _lock(entry)
            try:
                lock.acquire(timeout=0)
            except TimeoutError:
                continue  # its process lives
            with lock:
                try:
                    known = self._settle(client, entry)
                except (ValueError, KeyError, PrefectException, PrefectHTTPStatusError) as error:
                    # One old run that cannot be told must not keep new ones from running.
                    logger.warning("the end of flow run %s cannot be told to Prefect: %s", entry.stem, error)
                    continue
                if known:
                    crashed.append(UUID(entry.stem))
        return crashed

    def _settle(self, client: SyncPrefectClient, entry: Path) -> bool:
        """Tell the server the end of one run; return whether it had crashed."""
        record = read_json(entry)
        if not record or record["server"] != self.server:
            return False
        crashed = _tell(client, UUID(entry.stem), record)
        _forget(entry)
        return crashed


def _lock(entry: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(str(entry.with_suffix(".lock")))


def _forget(entry: Path) -> None:
    entry.unlink(missing_ok=True)
    entry.with_suffix(".lock").unlink(missing_ok=True)


def _tell(client: SyncPrefectClient, flow_run_id: UUID, record: dict[str, Any]) -> bool:
    """Set the state in which a run ended; return whether it is a crash that nobody had told."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.objects import State, StateType
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled, Completed, Crashed

    try:
        flow_run = client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return False
    if flow_run.state is None or flow_run.state.is_final() or flow_run.state.is_scheduled():
        return False  # over, or waiting for a worker again
    ended = record["ended"]
    crash: State[Any] = Crashed(
        message=f"The process of this run (id {record['pid']}) ended without a word: it was killed, or the "
        "machine went down. The same command goes on from what was done."
    )
    if flow_run.state.is_cancelling():
        crash = Cancelled(message="Its process ended while it was being cancelled.")
    state = State[Any](type=StateType(ended["type"]), message=ended["message"]) if ended else crash
    client.set_flow_run_state(flow_run_id, state, force=True)
    for task_run in client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))):
        if task_run.state is None or not task_run.state.is_final():
            late: State[Any] = Completed(message="The server was away when this step ended")
            client.set_task_run_state(task_run.id, late if state.is_completed() else crash.model_copy(), force=True)
    return ended is None

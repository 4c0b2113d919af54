"""Hands jobs to a worker over Prefect's API, and asks how they are; imports no Prefect."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.errors import UnavailableError
from llsflow.plan import FlowState, FlowStatus

from .names import FLOW, TAG, jobs_deployment
from .rest import PrefectApi, RefusedError

_STATES = {
    "SCHEDULED": FlowState.WAITING,
    "PENDING": FlowState.WAITING,
    "PAUSED": FlowState.WAITING,
    "RUNNING": FlowState.RUNNING,
    "CANCELLING": FlowState.CANCELLING,
    "COMPLETED": FlowState.COMPLETED,
    "FAILED": FlowState.FAILED,
    "CRASHED": FlowState.CRASHED,
    "CANCELLED": FlowState.CANCELLED,
}

_AT_ONCE = 200
"""Flow runs asked for in one request: the server's own limit."""


class PrefectSubmitter:
    """A Submitter over the jobs deployment of one work pool."""

    def __init__(self, work_pool: str = "llsflow", api: PrefectApi | None = None) -> None:
        """Make a submitter; nothing is asked yet.

        Args:
            work_pool: the pool whose worker does the jobs.
            api: the server; None: as the environment says.
        """
        self._deployment = jobs_deployment(work_pool)
        self._api = api or PrefectApi()
        self._known: tuple[str, str] | None = None
        """Address of the server, and id of the deployment there."""
        self._lock = threading.Lock()
        self._submitting = threading.Lock()

    def ready(self) -> bool:
        """Return whether a job that is submitted now will be taken: the server answers and knows the deployment."""
        try:
            self._deployment_id(asking=True)
        except UnavailableError:
            return False
        return True

    def submit(self, job_id: str, attempt: int, tags: Sequence[str] = ()) -> str:
        """Have the job run and return the id of its flow run; the same job and attempt give the same one.

        Raises:
            UnavailableError: Prefect does not answer, or does not know the deployment yet.
        """
        body = {
            "name": f"{job_id}-{attempt}" if attempt > 1 else job_id,
            "parameters": {"job_id": job_id},
            "idempotency_key": f"{job_id}:{attempt}",
            "tags": [TAG, *tags],
        }
        for again in (True, False):
            try:
                # The server refuses one of two requests with the same key that come at once.
                with self._submitting:
                    path = f"/deployments/{self._deployment_id()}/create_flow_run"
                    return str(self._api.post(path, body)["id"])
            except RefusedError as refused:
                if refused.status != 404 or not again:
                    raise UnavailableError(f"job {job_id} cannot be submitted: {refused}") from refused
                # Its database, or the deployment, was made anew.
                self._known = None
        raise AssertionError("the second try ends it")

    def statuses(self, flow_run_ids: Sequence[str]) -> Mapping[str, FlowStatus]:
        """Return where each run is.

        Raises:
            UnavailableError: Prefect does not answer.
        """
        found = {flow_run_id: FlowStatus(FlowState.UNKNOWN) for flow_run_id in flow_run_ids}
        for first in range(0, len(flow_run_ids), _AT_ONCE):
            asked = list(flow_run_ids[first : first + _AT_ONCE])
            runs = self._asked("/flow_runs/filter", {"flow_runs": {"id": {"any_": asked}}, "limit": _AT_ONCE})
            found |= {str(run["id"]): self._status(run) for run in runs}
        return found

    def cancel(self, flow_run_id: str) -> None:
        """Have the run stopped: at once where it waits, at its next step boundary where it runs.

        A run that has ended, or that Prefect does not know, stays as it is.

        Raises:
            UnavailableError: Prefect does not answer.
        """
        status = self.statuses([flow_run_id])[flow_run_id]
        if status.state not in (FlowState.WAITING, FlowState.RUNNING):
            return
        # Where no process was started for it yet, the server makes it Cancelled at once.
        state = {"type": "CANCELLING", "name": "Cancelling", "message": "Cancelled by a request to llsflow"}
        self._asked(f"/flow_runs/{flow_run_id}/set_state", {"state": state, "force": False})

    def close(self) -> None:
        """Close the connections."""
        self._api.close()

    def _status(self, run: Mapping[str, Any]) -> FlowStatus:
        state = run.get("state") or {}
        page = f"{(self._api.url or '').removesuffix('/api')}/runs/flow-run/{run['id']}"
        known = _STATES.get(str(state.get("type")), FlowState.UNKNOWN)
        return FlowStatus(known, str(state.get("message") or ""), page)

    def _deployment_id(self, *, asking: bool = False) -> str:
        """Return the id of the jobs deployment; remembered unless `asking`."""
        with self._lock:
            url = self._api.url or ""
            if self._known is None or asking or self._known[0] != url:
                self._known = None
                found = self._asked_for_deployment()
                self._known = (url, str(found["id"]))
            return self._known[1]

    def _asked_for_deployment(self) -> Any:
        try:
            return self._api.get(f"/deployments/name/{FLOW}/{self._deployment}")
        except RefusedError as refused:
            raise UnavailableError(
                f"Prefect has no deployment {FLOW}/{self._deployment}: the worker that makes it has not started yet"
            ) from refused

    def _asked(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            return self._api.post(path, body)
        except RefusedError as refused:
            raise UnavailableError(str(refused)) from refused

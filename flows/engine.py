"""The process of one flow run, as a worker starts it: `python -m flows.engine`. It leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
from uuid import UUID

from llsflow.garbage import look_seldom

from .ending import ENDING
from .launch import adopt_orphans, end_with
from .ledger import Ledger
from .processes import end_descendants
from .runner import ledger_of
from .stack import LocalPrefect

WORKER = "LLSFLOW_WORKER_PID"
"""Environment variable with the process id of the worker, with which its flow runs end."""


def main() -> None:
    """Run the flow run that PREFECT__FLOW_RUN_ID names."""
    look_seldom()
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    if worker := os.environ.pop(WORKER, None):
        end_with(int(worker), signal.SIGTERM)
    adopt_orphans()
    ENDING.arm()
    flow_run_id = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    ledger = ledger_of(LocalPrefect())
    with ledger.running(flow_run_id, plan_key=""):
        try:
            _run(flow_run_id)
        finally:
            end_descendants()
            with contextlib.suppress(Exception):  # a server that is away learns it when the next run begins
                _close(ledger, flow_run_id)


def _run(flow_run_id: UUID) -> None:
    """Do what Prefect's own engine does, for the one flow that there is: it need not ask where to find it."""
    from prefect.engine import handle_engine_signals
    from prefect.flow_engine import load_flow_run, run_flow

    from .entry import llsflow

    with handle_engine_signals(flow_run_id):
        # As a state: a result would be raised where the run failed, which its page tells already.
        run_flow(llsflow, flow_run=load_flow_run(flow_run_id), return_type="state")


def _close(ledger: Ledger, flow_run_id: UUID) -> None:
    """Forget the run where the server knows how it ended; end one that was cancelled before it began."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
        if state is not None and state.is_cancelling():
            client.set_flow_run_state(flow_run_id, Cancelled(message="Cancelled before its first step"), force=True)
        elif state is not None and (state.is_running() or state.is_pending()):
            return
    ledger.forget(flow_run_id)


if __name__ == "__main__":
    main()

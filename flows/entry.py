"""The flow that workers run: a job of the store, or an experiment on a schedule; the same walk as `llsflow run`."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed
from prefect.utilities.urls import url_for

from llsflow.config import load_experiment, to_yaml
from llsflow.errors import LlsflowError, Stopped
from llsflow.plan import compile_plan
from llsflow.plan.compile import remember
from llsflow.schema.plan import StepState
from llsflow.steps.context import Origin
from llsflow.steps.opening import open_plan_run

from .ending import ENDING
from .names import FLOW
from .runner import PrefectRunner, ledger_of

logger = logging.getLogger("llsflow.flows")


@flow(name=FLOW, persist_result=False)
def llsflow(
    job_id: str | None = None,
    experiment: str | None = None,
    overrides: list[str] | None = None,
    config_dir: str | None = None,
) -> State[Any]:
    """Fine-tune, evaluate and record, as one plan says.

    Args:
        job_id: a job of the store; the rest is its own then.
        experiment: a name of conf/experiment.
        overrides: as on the command line.
        config_dir: configuration that stands before the packaged one.
    """
    # Prefect put a handler of its own in place, which ends a run in the middle of a step.
    ENDING.arm()
    flow_run = _flow_run()
    with _our_log():
        logger.info("flow run %s begins", flow_run.name)
        try:
            if job_id is not None:
                state = _job(job_id, flow_run)
            else:
                state = _experiment(experiment or "", overrides or [], config_dir, flow_run)
        except Stopped as stopped:
            state = _stopped(stopped, flow_run, goes_on=job_id is None)
        except LlsflowError as error:
            get_run_logger().error("%s", error)
            state = Failed(message=str(error))
    runner = PrefectRunner()
    if state.is_final():
        ledger_of(runner.prefect).ended(flow_run.id, state, acknowledged=False)
    return state


def _job(job_id: str, flow_run: FlowRun) -> State[Any]:
    from llsflow.jobs.work import open_job

    with open_job(job_id, str(flow_run.id), ENDING.asked.is_set) as work:
        work.cancelled = lambda: _is_cancelled(flow_run)
        remember(work.plan)

        def stopping() -> bool:
            return work.stopping() or ENDING.asked.is_set()

        with open_plan_run(work.plan, [work.watcher], stopping, work.origin) as plan_run:
            plan_run.flow_url = url_for(flow_run)
            work.opened(plan_run)
            return PrefectRunner().run_within(work.plan, plan_run, flow_run)


def _experiment(name: str, overrides: list[str], config_dir: str | None, flow_run: FlowRun) -> State[Any]:
    folder = Path(config_dir) if config_dir else None
    loaded = load_experiment(name, overrides, config_dir=folder)
    plan = compile_plan(loaded.experiment, folder)
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # a courtesy
        client.set_flow_run_name(flow_run.id, f"{plan.experiment.name}-{plan.key[:8]}")
    if all(step.state is StepState.SKIP for step in plan.steps):
        return Completed(message=f"nothing to do: all {len(plan.steps)} steps are up to date")
    remember(plan)
    flags = ["--config-dir", config_dir] if config_dir else []
    origin = Origin(to_yaml(loaded), loaded.overrides, shlex.join(["llsflow", "run", name, *overrides, *flags]))
    with open_plan_run(plan, [], ENDING.asked.is_set, origin) as plan_run:
        return PrefectRunner().run_within(plan, plan_run, flow_run)


def _stopped(stopped: Stopped, flow_run: FlowRun, *, goes_on: bool) -> State[Any]:
    """Return how a run ends that was stopped: for good where somebody asked so, else it waits for the next worker.

    Args:
        stopped: what it was.
        flow_run: the run.
        goes_on: whether it is this very run that goes on; a job goes on in another.
    """
    if not ENDING.asked.is_set() or _is_cancelled(flow_run):
        return Cancelled(message=str(stopped))
    message = f"its worker ended: {stopped}"
    return AwaitingRetry(message=message) if goes_on else Crashed(message=message)


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or not isinstance(context.flow_run, FlowRun):
        raise RuntimeError("this flow runs by its deployment only: see `llsflow deploy`")
    return context.flow_run


def _is_cancelled(flow_run: FlowRun) -> bool:
    """Return whether somebody cancelled the run, as far as the server tells."""
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run.id).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    return False


@contextlib.contextmanager
def _our_log() -> Iterator[None]:
    """Let what llsflow logs come out of this process too: its worker keeps it."""
    ours = logging.getLogger("llsflow")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)-7s %(name)s - %(message)s"))
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)

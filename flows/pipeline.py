"""A Plan as a Prefect flow: one task run for each step, in this process and in this thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectSignal
from prefect.flow_engine import run_flow_sync
from prefect.flows import Flow
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler, APILogWorker
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Cancelled, Completed, Failed, Pending
from prefect.utilities.urls import url_for

from llsflow.errors import LlsflowError, Stopped, UnavailableError
from llsflow.schema.plan import Plan, Step, StepResult
from llsflow.steps.context import PlanRun

from .ledger import Ledger
from .names import FLOW, TAG
from .page import Page, publish_link, publish_table

Execute = Callable[[Step, PlanRun, Mapping[str, StepResult]], tuple[StepResult, bool]]
"""Runs one step: its result, and whether it was there already."""

TABLE_KINDS = ("compare", "record")
"""Kinds of step whose summary may hold the result table."""

_HAND_OVER_SECONDS = 5.0

_PASSING = (UnavailableError, OSError)
"""What another try may mend; every other LlsflowError is the user's to mend."""

logger = logging.getLogger("llsflow.flows")


class PrefectLost(Exception):
    """Prefect could not run a step; the step itself is not at fault."""


@dataclass
class Pipeline:
    """One run of a plan."""

    plan: Plan
    plan_run: PlanRun
    execute: Execute
    retries: Mapping[str, int]
    """Further tries, by kind of step."""
    retry_seconds: float
    """Before the first further try; twice as long before each one after."""
    ledger: Ledger
    page: Page
    results: dict[str, StepResult] = field(default_factory=dict)
    error: BaseException | None = None
    """What ended the run: raised by a step, not by Prefect."""
    _tries: dict[str, int] = field(default_factory=dict)
    _skipped: int = 0
    _outer_sigterm: Callable[..., Any] | None = None

    def run(self) -> dict[str, StepResult]:
        """Run every step and return the results by name.

        A Prefect server that dies in the middle costs the run its page, not its results: what is left
        is run without it, with a warning.

        Raises:
            UnavailableError: Prefect did not answer before the first step.
            LlsflowError: whatever a step raised, unchanged.
        """
        with get_client(sync_client=True) as client:
            flow = self._flow()
            flow_run = self._register(client, flow)
            with self.ledger.running(flow_run.id, self.plan.key):
                acknowledged = self._run_flow(client, flow, flow_run)
                self.ledger.ended(flow_run.id, self.verdict(), acknowledged=acknowledged)
        _hand_over(wait=acknowledged)
        if self.error is not None:
            self._raise()
        return self.results

    def run_within(self, flow_run: FlowRun) -> dict[str, StepResult]:
        """Run every step within the flow run of a worker, called from its flow; return the results by name.

        The flow is to end in `verdict()`. A Prefect server that dies in the middle costs the run its page only.

        Raises:
            LlsflowError: whatever a step raised, unchanged.
        """
        self.plan_run.flow_url = url_for(flow_run)
        try:
            self._walk()
        except (Exception, PrefectSignal) as lost:
            logger.warning("Prefect cannot go on with this run (%s): it goes on without its page", one_line(lost))
            self._go_on_alone()
        if self.error is not None:
            self._raise()
        return self.results

    def _raise(self) -> NoReturn:
        """Raise what a step raised, as it raised it."""
        error = self.error
        assert error is not None  # noqa: S101 - for the type checker
        # A reference to the error from here would keep every frame of the step alive with it.
        self.error = None
        raise error

    def _register(self, client: SyncPrefectClient, flow: Flow[Any, Any]) -> FlowRun:
        """Settle the dead runs of this home, then make the flow run of this one."""
        experiment = self.plan.experiment
        benchmark = experiment.benchmark
        tags = [TAG, experiment.name, experiment.model.model_id]
        try:
            for crashed in self.ledger.settle(client):
                logger.info("flow run %s had crashed; Prefect knows it now", crashed)
            flow_run = client.create_flow_run(
                flow,
                parameters=self._parameters(),
                name=f"{experiment.name}-{self.plan.key[:8]}",
                # Tags stay on the flow run: each tag of a task run costs a request when it begins.
                tags=[*tags, benchmark.benchmark_id] if benchmark else tags,
                state=Pending(),
            )
        except Exception as error:
            raise UnavailableError(
                f"the Prefect server at {client.api_url} did not take the run: {one_line(error)}; "
                "run the same command again"
            ) from error
        self.plan_run.flow_url = url_for(flow_run)
        return flow_run

    def _parameters(self) -> dict[str, Any]:
        return {"experiment": self.plan.experiment.name, "plan": self.plan.key, "mlflow_run": self.plan_run.run.id}

    def _flow(self) -> Flow[Any, Any]:
        def llsflow() -> State[Any]:
            """Fine-tune, evaluate and record, as one plan says."""
            return self._walk()

        return Flow(llsflow, name=FLOW, validate_parameters=False, persist_result=False, description=_about(self.plan))

    def _run_flow(self, client: SyncPrefectClient, flow: Flow[Any, Any], flow_run: FlowRun) -> bool:
        """Run the flow, and what Prefect left undone of it; return whether Prefect knows how it ended."""
        self._outer_sigterm = _sigterm_handler()
        try:
            # Heartbeats only serve automations on the server, and ending them costs up to a second.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                state = run_flow_sync(flow, flow_run=flow_run, return_type="state")
            if self._is_over():
                return True
            raise PrefectLost(getattr(state, "message", None) or "it ended the run early")
        except (Exception, PrefectSignal) as lost:
            if not self._is_over():
                logger.warning("Prefect cannot go on with this run (%s): it goes on without its page", one_line(lost))
                self._go_on_alone()
                if isinstance(lost, PrefectLost) and self._correct(client, flow_run):
                    return True
            logger.warning("Prefect does not know how this run ended (%s): the next run tells it", one_line(lost))
            return False

    def _is_over(self) -> bool:
        return self.error is not None or len(self.results) == len(self.plan.steps)

    def _correct(self, client: SyncPrefectClient, flow_run: FlowRun) -> bool:
        """Replace the state that Prefect gave the run; return whether it could be."""
        with contextlib.suppress(Exception):
            client.set_flow_run_state(flow_run.id, self.verdict(), force=True)
            return True
        return False

    def _walk(self) -> State[Any]:
        """The body of the flow."""
        if self._outer_sigterm is not None:
            # Prefect put its own handler in place; the caller's knows how to stop at a step's boundary.
            signal.signal(signal.SIGTERM, self._outer_sigterm)
        link = self.plan_run.tracking.page(self.plan_run.run.id)
        publish_link("mlflow", self.plan.experiment.name, "MLflow run", link)
        states: dict[str, State[Any]] = {}
        with self.page.open(), _joined(self.plan_run, self.page), _our_log_on_the_page():
            for step in self.plan.steps:
                before = [states[name] for name in step.inputs.values()]
                state = self._task(step)(wait_for=before, return_state=True)
                states[step.name] = state
                if self.error is not None:
                    break
                if step.name not in self.results:
                    raise PrefectLost(state.message or f"{step.name} ended as {state.name}")
        return self.verdict()

    def verdict(self) -> State[Any]:
        """Return the state in which the flow run ends."""
        if self.error is not None:
            return failure(self.error)
        done = len(self.results) - self._skipped
        return Completed(message=f"{done} steps run, {self._skipped} skipped")

    def _task(self, step: Step) -> Task[..., Any]:
        tries = self.retries.get(step.kind, 0)

        def run_step() -> State[Any]:
            with self.page.step(step):
                return self._one_try(step)

        def may_pass(_task: Task[..., Any], _task_run: TaskRun, _state: State[Any]) -> bool:
            return self.error is None

        return Task(
            run_step,
            name=step.kind,
            task_run_name=step.name.replace("{", "{{").replace("}", "}}"),
            description=step.reason or None,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=tries,
            retry_delay_seconds=[self.retry_seconds * 2**n for n in range(tries)] or None,
            retry_jitter_factor=0.2 if tries else None,
            retry_condition_fn=may_pass,
        )

    def _one_try(self, step: Step) -> State[Any]:
        """Run the step within its task run; raise only what Prefect shall answer with another try."""
        tried = self._tries[step.name] = self._tries.get(step.name, 0) + 1
        try:
            result, skipped = self._run_step(step)
        except _PASSING as error:
            if tried <= self.retries.get(step.kind, 0):
                raise
            self.error = error
            return self._told(error)
        except BaseException as error:
            self.error = error
            if isinstance(error, Exception):
                return self._told(error)
            raise
        if step.kind in TABLE_KINDS:
            publish_table("results", self.plan.experiment.name, result.summary.get("table"))
        if skipped:
            return Completed(name="Skipped", message=step.reason or "done by an earlier run")
        return Completed(message=f"{result.seconds:.1f} s, in {result.folder}")

    def _run_step(self, step: Step) -> tuple[StepResult, bool]:
        result, skipped = self.execute(step, self.plan_run, self.results)
        self.results[step.name] = result
        self._skipped += skipped
        return result, skipped

    def _told(self, error: Exception) -> State[Any]:
        """Return the state that an error ends in; its sentence, or the traceback of a mistake of ours."""
        run_logger = get_run_logger()
        if isinstance(error, LlsflowError):
            run_logger.log(logging.INFO if isinstance(error, Stopped) else logging.ERROR, "%s", error)
        else:
            run_logger.error("%s", one_line(error), exc_info=error)
        return failure(error)

    def _go_on_alone(self) -> None:
        """Run what is left without Prefect."""
        try:
            for step in self.plan.steps:
                if step.name not in self.results:
                    self._run_step(step)
        except BaseException as error:
            self.error = error


def _hand_over(*, wait: bool) -> None:
    """Send what Prefect still holds in its queues, so that the page is whole when we name it.

    A server that went away gets nothing: Prefect would try ten times for each event, and the process
    would not end for minutes.
    """
    services: tuple[Any, ...] = (EventsWorker, APILogWorker)
    for service in services:
        for instance in () if wait else tuple(service._instances.values()):
            with contextlib.suppress(queue.Empty):
                while True:
                    instance._queue.get_nowait()
        service.drain_all(timeout=_HAND_OVER_SECONDS)


def failure(error: BaseException) -> State[Any]:
    """Return the state in which a run ends that met an error."""
    if isinstance(error, Stopped):
        return Cancelled(message=str(error))
    if isinstance(error, LlsflowError):
        return Failed(message=str(error))
    return Failed(message=one_line(error))


def one_line(error: BaseException) -> str:
    """Return the kind and the first line of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _about(plan: Plan) -> str:
    lines = [plan.experiment.description] if plan.experiment.description else []
    return "\n\n".join([*lines, "Compiled by llsflow from one YAML: " + " → ".join(s.name for s in plan.steps)])


def _sigterm_handler() -> Callable[..., Any] | None:
    """Return the handler that the caller put in place for SIGTERM, where there is one to keep."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler = signal.getsignal(signal.SIGTERM)
    return handler if callable(handler) else None


@contextlib.contextmanager
def _our_log_on_the_page() -> Iterator[None]:
    """Send what llsflow logs to the page too; where nobody listens, leave it to Python's last resort."""
    ours = logging.getLogger("llsflow")
    if not ours.hasHandlers():
        yield
        return
    handler = APILogHandler(level=logging.INFO)
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)


@contextlib.contextmanager
def _joined(plan_run: PlanRun, page: Page) -> Iterator[None]:
    """Make the page one of the run's watchers, and its Cancel button one of the ways to stop."""
    cancelled = threading.Event()
    page.on_cancel = cancelled.set
    asked = plan_run.stopping
    plan_run.stopping = lambda: cancelled.is_set() or asked()
    plan_run.watchers.append(page)
    try:
        yield
    finally:
        plan_run.watchers.remove(page)
        plan_run.stopping = asked

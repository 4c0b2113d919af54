"""Runs a Plan as a Prefect flow; light until it runs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llsflow.errors import LlsflowError
from llsflow.schema.plan import Plan, StepResult

from .ledger import Ledger
from .stack import LocalPrefect

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

    from llsflow.steps.context import PlanRun

    from .pipeline import Execute, Pipeline


class PrefectRunner:
    """Runs plans as flows on the local Prefect server, or on the one that PREFECT_API_URL names."""

    def __init__(
        self,
        execute: Execute | None = None,
        *,
        retries: Mapping[str, int] | None = None,
        retry_seconds: float = 2.0,
        progress_seconds: float = 2.0,
        wait_seconds: float = 180.0,
    ) -> None:
        """Make a runner; nothing is started yet.

        Args:
            execute: runs one step; None: llsflow.steps.execute.
            retries: further tries by kind of step; None: as llsflow.steps.STEPS says.
            retry_seconds: before the first further try; doubled before each one after.
            progress_seconds: between two updates of the progress on the page.
            wait_seconds: how long the server may take to answer.
        """
        self.prefect = LocalPrefect()
        self._execute = execute
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._progress_seconds = progress_seconds
        self._wait_seconds = wait_seconds
        self._warming: threading.Thread | None = None
        self._comebacks = 3
        self._listen_seconds = 5.0

    def start(self) -> None:
        """Start the local server unless it runs; return at once, while it boots.

        Raises:
            StorageError: LLSFLOW_HOME cannot be written.
        """
        self.prefect.start()
        os.environ.update(self.prefect.environment())

    def warm(self, modules: Sequence[str] = ()) -> None:
        """Import Prefect, then `modules`, in the background, while the server boots; call after start()."""
        names = [f"{__package__}.pipeline", *modules]

        def import_all() -> None:
            for name in names:
                # Whoever needs the module imports it again and meets the error where it can be told.
                with contextlib.suppress(Exception):
                    importlib.import_module(name)

        self._warming = threading.Thread(target=import_all, name="llsflow-warm", daemon=True)
        self._warming.start()

    def run(self, plan: Plan, plan_run: PlanRun) -> dict[str, StepResult]:
        """Run every step of the plan, in this thread; return the results by step name.

        Sets `plan_run.flow_url` before the first step.

        Raises:
            UnavailableError: Prefect does not answer.
            Stopped: the user asked to stop; the flow run ends as Cancelled.
            LlsflowError: what a step raised, unchanged; the flow run ends as Failed with its sentence.
        """
        self.start()
        self.prefect.wait(self._wait_seconds, plan_run.stopping)
        # The server may have had to take another port than the one it was started with.
        os.environ.update(self.prefect.environment())
        if self._warming is not None:
            self._warming.join()
        _let_prefect_read_the_environment()
        pipeline = self._pipeline(plan, plan_run)
        pipeline.page.on_lost = self._bring_back
        with _no_words_on_the_terminal():
            return pipeline.run()

    def run_within(self, plan: Plan, plan_run: PlanRun, flow_run: FlowRun) -> State[Any]:
        """Run every step of the plan within the flow run that a worker started; return how the flow is to end.

        Sets `plan_run.flow_url` before the first step.

        Raises:
            Stopped: the user asked to stop, or the worker ends.
            LlsflowError: what a step raised, unchanged.
        """
        pipeline = self._pipeline(plan, plan_run)
        pipeline.run_within(flow_run)
        return pipeline.verdict()

    def _pipeline(self, plan: Plan, plan_run: PlanRun) -> Pipeline:
        from .page import Page
        from .pipeline import Pipeline

        return Pipeline(
            plan=plan,
            plan_run=plan_run,
            execute=self._execute or _real_execute(),
            retries=_retries_of_kinds() if self._retries is None else self._retries,
            retry_seconds=self._retry_seconds,
            ledger=ledger_of(self.prefect),
            page=Page(self._progress_seconds, self._listen_seconds),
        )

    def _bring_back(self) -> None:
        """Start the local server again when it was killed in the middle of a run."""
        if self._comebacks:
            self._comebacks -= 1
            with contextlib.suppress(LlsflowError):
                self.prefect.start()

    def stop(self) -> bool:
        """End the local server; return whether one ran."""
        return self.prefect.stop()


def ledger_of(prefect: LocalPrefect) -> Ledger:
    """Return who runs what in this home, as far as runs are known to that server."""
    return Ledger(prefect.folder / "runs", prefect.external or "local")


def _let_prefect_read_the_environment() -> None:
    """Import Prefect; where it is imported already, with another server or home, have it look again."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if (settings.api.url, str(settings.home)) != (os.environ["PREFECT_API_URL"], os.environ["PREFECT_HOME"]):
        refresh_global_settings_context()


def _real_execute() -> Execute:
    from llsflow.steps.execute import execute

    return execute


def _retries_of_kinds() -> dict[str, int]:
    from llsflow.steps import STEPS

    return {name: kind.retries for name, kind in STEPS.items() if kind.retries}


@contextlib.contextmanager
def _no_words_on_the_terminal() -> Iterator[None]:
    """Keep Prefect's log worker, which writes past its own logging configuration, off the terminal."""
    before = logging.raiseExceptions
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = before

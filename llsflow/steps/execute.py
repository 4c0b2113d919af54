"""Run one step: once, whoever asks, with its record in MLflow and its output whole or not there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from llsflow import home
from llsflow.errors import Stopped
from llsflow.schema.plan import Step, StepResult
from llsflow.steps import STEPS, results, versions_of
from llsflow.steps.context import PlanRun, StepContext
from llsflow.tracking import Run

logger = logging.getLogger("llsflow.steps")


def execute(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
    """Return the step's result, and whether it was there already.

    Args:
        step: the step of `plan_run.plan`.
        plan_run: the run it belongs to.
        done: results of the steps before it, by name.

    Raises:
        Stopped: the user asked to stop.
        LlsflowError: the step cannot be done, in one sentence.
    """
    if plan_run.stopping():
        raise Stopped(f"stopped before {step.name}")
    with home.locked(f"{step.kind}-{step.key[:16]}", waiting_for=f"another run of {step.name}", stop=plan_run.stopping):
        if (result := results.finished(step)) is not None:
            for watcher in plan_run.watchers:
                watcher.step_skipped(step, result)
            return result, True
        return _run(step, plan_run, done), False


def _run(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> StepResult:
    folder = results.work_folder(step)
    with home.storage_errors(home.home()):
        folder.mkdir(parents=True, exist_ok=True)
    logger.info("%s begins", step.name)
    run = _open_run(step, plan_run)
    for watcher in plan_run.watchers:
        watcher.step_started(step)
    began = time.perf_counter()
    inputs = {role: done[name] for role, name in step.inputs.items()}
    try:
        with home.storage_errors(home.home()):
            summary = STEPS[step.kind].function()(StepContext(step, inputs, folder, run, plan_run))
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
        raise
    result = StepResult(
        name=step.name,
        kind=step.kind,
        key=step.key,
        folder=str(folder),
        summary=summary,
        run_id=run.id,
        seconds=round(time.perf_counter() - began, 3),
        libraries=versions_of(step.kind),
        open=bool(summary.get("unanswered")) or any(given.open for given in inputs.values()),
    )
    result = results.commit(step, result)
    logger.info("%s is done, in %.1f s", step.name, result.seconds)
    run.finish("FINISHED")
    for watcher in plan_run.watchers:
        watcher.step_finished(step, result)
    return result


def _open_run(step: Step, plan_run: PlanRun) -> Run:
    """Open the step's MLflow run; a step that goes on after a crash goes on in the same run."""
    memo = results.work_folder(step) / "mlflow_run.json"
    known = home.read_json(memo)
    run = plan_run.tracking.open_run(
        step.name,
        parent_id=plan_run.run.id,
        run_id=known,
        tags={"llsflow.step": step.kind, "llsflow.key": step.key},
    )
    home.write_json(memo, run.id)
    return run

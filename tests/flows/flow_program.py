"""Plans whose steps do what their settings say, and a program that runs one: for tests, here and in a child."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.runner import PrefectRunner
from llsflow.errors import ModelError, Stopped, UnavailableError
from llsflow.home import digest, home
from llsflow.schema.experiment import Experiment
from llsflow.schema.models import ModelConfig
from llsflow.schema.plan import Plan, Step, StepResult
from llsflow.steps.context import PlanRun, Progress
from tests.patience import PATIENCE_SECONDS

SENTENCE = "no tokenizer in ./somewhere: copy tokenizer.json there"


def make_plan(*dos: str, name: str = "quickstart", kinds: Mapping[int, str] = {}, **settings: Any) -> Plan:
    """Return a plan of one step for each word, each step after the one before it."""
    steps = [
        Step(
            name=f"{do}-{n}",
            kind=kinds.get(n, "prepare"),
            key=digest([name, n, do, settings]),
            settings={"do": do, **settings},
            inputs={"before": f"{dos[n - 1]}-{n - 1}"} if n else {},
            reason=f"because of {do}",
        )
        for n, do in enumerate(dos)
    ]
    experiment = Experiment(name=name, description="A try.", model=ModelConfig(model_id="org/tiny", path="x"))
    return Plan(key=digest([step.key for step in steps]), experiment=experiment, steps=steps)


class MlflowAddress:
    """The one thing that a flow asks of the tracking."""

    def page(self, run_id: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"


class RunIdentity:
    """The one thing that a flow asks of the run."""

    id = "0123456789abcdef"


def make_plan_run(plan: Plan) -> PlanRun:
    origin: Any = None  # of the steps' concern only
    return PlanRun(plan, MlflowAddress(), RunIdentity(), watchers=[], stopping=lambda: False, origin=origin)  # type: ignore[arg-type]


def wait_for(condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what if isinstance(what, str) else what()}: not within {seconds} seconds"
        time.sleep(0.02)


def go_file() -> Path:
    """Return the file whose appearance lets a waiting step go on."""
    return home() / "go"


def began_file(step_name: str) -> Path:
    """Return the file that says that a step began."""
    return home() / f"began-{step_name}"


def execute(step: Step, plan_run: PlanRun, done: Mapping[str, StepResult]) -> tuple[StepResult, bool]:
    """Do what the step's settings say."""
    assert set(step.inputs.values()) <= set(done), "a step runs after the steps it needs"
    if plan_run.stopping():
        raise Stopped(f"stopped before {step.name}")
    began_file(step.name).write_text("")
    ACTIONS.get(step.settings["do"], lambda *_: None)(step, plan_run)
    result = StepResult(
        name=step.name, kind=step.kind, key=step.key, folder=f"/{step.name}", summary=step.settings.get("summary", {})
    )
    return result, step.settings["do"] == "skip"


def _fail(step: Step, plan_run: PlanRun) -> None:
    raise ModelError(SENTENCE)


def _stop(step: Step, plan_run: PlanRun) -> None:
    raise Stopped("stopped after step 30 of 300; run the same command to go on")


def _bug(step: Step, plan_run: PlanRun) -> None:
    raise ValueError("a programming error")


def _interrupt(step: Step, plan_run: PlanRun) -> None:
    raise KeyboardInterrupt


def _log(step: Step, plan_run: PlanRun) -> None:
    logging.getLogger("llsflow.data").warning("3 rows were cut")


def _flaky(step: Step, plan_run: PlanRun) -> None:
    tries = began_file(step.name).with_suffix(".tries")
    tried = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (tried + 1))
    if tried < step.settings["failures"]:
        raise UnavailableError(f"the endpoint does not answer (try {tried + 1})")


def _progress(step: Step, plan_run: PlanRun) -> None:
    for done in range(0, 301, 50):
        for watcher in plan_run.watchers:
            watcher.progress(step, Progress(done, 300, "steps", {"loss": 1.0 / (1 + done)}))


def _wait(step: Step, plan_run: PlanRun) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not go_file().exists():
        if plan_run.stopping():
            raise Stopped("stopped while waiting")
        assert time.monotonic() < deadline
        time.sleep(0.02)


ACTIONS = {
    "fail": _fail,
    "stop": _stop,
    "bug": _bug,
    "interrupt": _interrupt,
    "log": _log,
    "flaky": _flaky,
    "progress": _progress,
    "wait": _wait,
}


def main() -> None:
    """Run the plan whose words stand on the command line; print what came of it as JSON."""
    runner = PrefectRunner(execute, retry_seconds=0.05, progress_seconds=0.05)
    runner.start()
    if sys.argv[1:] == ["boot"]:
        sys.stdout.write(json.dumps({"url": runner.prefect.wait()}))
        return
    runner.warm()
    plan = make_plan(*sys.argv[1:])
    plan_run = make_plan_run(plan)
    results = runner.run(plan, plan_run)
    sys.stdout.write(json.dumps({"steps": list(results), "flow_url": plan_run.flow_url}))


if __name__ == "__main__":
    main()

"""`llsflow run`: plan, run what is not up to date, print the result and where to look."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from llsflow import home
from llsflow.cli.experiment import again, load, printed
from llsflow.cli.joined import new_runner
from llsflow.cli.progress import Terminal
from llsflow.cli.words import score
from llsflow.config import Loaded, to_yaml
from llsflow.errors import Stopped
from llsflow.plan import compile_plan
from llsflow.plan.compile import remember
from llsflow.schema.plan import Plan, StepResult, StepState
from llsflow.schema.scoring import AnswerCounts
from llsflow.steps import STEPS, results
from llsflow.steps.checkpoints import exported_checkpoint

SAME_REQUEST_SECONDS = 1.0
"""A supervisor may send its signal to the process and to its group: that is one request, not two."""


def command(options: argparse.Namespace) -> int:
    """Run an experiment."""
    console = Console()
    loaded = load(options)
    if printed(options, loaded):
        return 0
    home.ensure_writable()
    plan = compile_plan(loaded.experiment, options.config_dir)
    todo = [step for step in plan.steps if step.state is not StepState.SKIP]
    if not todo:
        console.print(f"{plan.experiment.name}: nothing to do, all {len(plan.steps)} steps are up to date")
        _show_results({step.name: _done(step) for step in plan.steps}, console)
        return 0
    skipped = f", {len(plan.steps) - len(todo)} up to date" if len(todo) < len(plan.steps) else ""
    console.print(f"[bold]{plan.experiment.name}[/]  plan {plan.key[:12]}: {len(todo)} steps to run{skipped}")
    with _stop_on_interrupt() as stopping:
        try:
            _run(plan, loaded, options, console, stopping)
        except Stopped as stopped:
            raise Stopped(f"{stopped}\nto go on: {again(options)}") from None
    return 0


def _done(step: Any) -> StepResult:
    result = results.finished(step, partial=True)
    assert result is not None  # noqa: S101 - the plan says so
    return result


def _run(plan: Plan, loaded: Loaded, options: argparse.Namespace, console: Console, stopping: threading.Event) -> None:
    runner = new_runner()
    runner.start()
    runner.warm([STEPS[step.kind].module for step in plan.steps if step.state is not StepState.SKIP])
    from llsflow.steps.context import Origin
    from llsflow.steps.opening import open_plan_run

    origin = Origin(to_yaml(loaded), loaded.overrides, again(options))

    remember(plan)
    with Terminal(console, plan) as terminal:
        terminal.note("starting Prefect and MLflow")
        with open_plan_run(plan, [terminal], stopping.is_set, origin) as plan_run:
            done = runner.run(plan, plan_run)
            page, flow = plan_run.tracking.page(plan_run.run.id), plan_run.flow_url
    _show_results(done, console)
    console.print(f"MLflow    {page}  (open it with `llsflow ui`)", highlight=False, soft_wrap=True)
    if flow:
        console.print(f"Prefect   {flow}  (`llsflow stop` ends the server)", highlight=False, soft_wrap=True)


def _show_results(done: dict[str, StepResult], console: Console) -> None:
    """Print the scores and where the model and the report are."""
    if "compare" in done:
        _show_comparison(done["compare"].summary, console)
        for result in done.values():
            _show_counts(result, console, named=True)
    else:
        for result in done.values():
            if result.kind == "evaluate":
                _show_scores(result, console)
    for name, title in (("export", "Model"), ("record", "Report")):
        if name in done:
            place = Path(done[name].folder) / ("model" if name == "export" else "report.html")
            note = _which_checkpoint(done) if name == "export" else ""
            console.print(f"{title:<8}  {_short(place)}{note}", highlight=False, soft_wrap=True)


def _which_checkpoint(done: dict[str, StepResult]) -> str:
    """Return what there is to say of the exported checkpoint: it is not the last one, or not the best one."""
    exported, best = done["export"].summary["checkpoint"], done["train"].summary["best"]
    if exported["which"] == "best":
        return f"  ({exported_checkpoint(exported)})"
    if best is None or best["step"] == exported["step"]:
        return ""
    return (
        f"  ({exported_checkpoint(exported)}; step {best['step']:,} had the least, {best['validation_loss']:.4g}: "
        "recipe.export_checkpoint=best exports that one)"
    )


def _show_comparison(compared: dict[str, Any], console: Console) -> None:
    labels, rows = compared["labels"], compared["table"]
    title = f"{rows[0]['benchmark']}: {rows[0]['rows']} rows, with 95 % intervals"
    table = Table(title=title, title_justify="left")
    table.add_column("scoring function", overflow="fold")
    for heading in (*labels, "difference"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["scorer"],
            *(score(row[label], row[f"{label}_interval"]) for label in labels),
            score(row["difference"], row["interval"], sign=True),
        )
    console.print(table)


def _show_scores(result: StepResult, console: Console) -> None:
    table = Table(title=f"{result.summary['benchmark']}, with 95 % intervals", title_justify="left")
    for heading in ("scoring function", "metric", "score"):
        table.add_column(heading)
    table.add_column("unscored rows", justify="right")
    for scorer, metrics in result.summary["scores"].items():
        for metric, values in metrics.items():
            table.add_row(scorer, metric, score_of(metric, values), f"{values.get('num_unscored', 0):,}")
    console.print(table)
    _show_counts(result, console)


def _show_counts(result: StepResult, console: Console, *, named: bool = False) -> None:
    """Print how many rows of an evaluation have no answer, or one that was cut off."""
    if result.kind != "evaluate":
        return
    words = AnswerCounts.model_validate(result.summary["counts"]).words
    if words:
        again = "; the same command asks those again that were not answered" if result.open else ""
        console.print(f"{result.name + ': ' if named else ''}{words}{again}", highlight=False, soft_wrap=True)


def score_of(metric: str, values: dict[str, Any]) -> str:
    """Return an aggregated result as text."""
    value = values.get(metric)
    return score(value, values.get("confidence_interval_95")) if isinstance(value, int | float) else str(value)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """While open, the first Ctrl-C asks for a stop at the next step boundary, the second stops at once."""
    stopping = threading.Event()
    asked = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if stopping.is_set():
            if time.monotonic() - asked > SAME_REQUEST_SECONDS:
                raise KeyboardInterrupt
            return
        asked = time.monotonic()
        stopping.set()
        sys.stderr.write("\nstopping after this step, with a checkpoint; Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

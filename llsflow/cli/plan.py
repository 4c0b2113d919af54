"""`llsflow plan`: what a run would do, what it costs and why."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from llsflow.cli.experiment import load, printed
from llsflow.cli.words import amount, duration, size
from llsflow.plan import compile_plan
from llsflow.schema.plan import Plan, StepState

COLOURS = {StepState.SKIP: "dim", StepState.RUN: "bold", StepState.RESUME: "bold yellow"}


def command(options: argparse.Namespace) -> int:
    """Print the plan."""
    loaded = load(options)
    if printed(options, loaded):
        return 0
    show(compile_plan(loaded.experiment, options.config_dir), Console())
    return 0


def show(plan: Plan, console: Console) -> None:
    """Print the steps of a plan with their state and reason, then what they cost, and the sum."""
    console.print(f"[bold]{plan.experiment.name}[/]  plan {plan.key[:12]}")
    console.print(_reasons(plan))
    console.print(_costs(plan))
    todo = [step for step in plan.steps if step.state is not StepState.SKIP]
    if not todo:
        console.print("nothing to do: every step is up to date")
        return
    seconds = sum(step.estimate.seconds or 0 for step in todo)
    disk = sum(step.estimate.disk_bytes or 0 for step in todo)
    skipped = f", {len(plan.steps) - len(todo)} up to date" if len(todo) < len(plan.steps) else ""
    console.print(f"{len(todo)} steps to run{skipped}; about {duration(seconds)} and {size(disk)} of disk")


def _reasons(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "will", "because"):
        table.add_column(heading, overflow="fold")
    for step in plan.steps:
        table.add_row(step.name, step.state.value, step.reason, style=COLOURS[step.state])
    return table


def _costs(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, title="\nestimates", title_justify="left")
    table.add_column("step")
    for heading in ("rows", "tokens", "steps", "params", "memory", "disk", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in plan.steps:
        cost = step.estimate
        counts = [amount(n) for n in (cost.rows, cost.tokens, cost.optimizer_steps, cost.parameters)]
        sizes = [size(n) for n in (cost.memory_bytes, cost.disk_bytes)]
        if any([*counts, *sizes]):
            table.add_row(step.name, *counts, *sizes, duration(cost.seconds), style=COLOURS[step.state])
    return table

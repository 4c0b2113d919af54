"""`llsflow check`: configuration, model and rows, without running anything."""

from __future__ import annotations

import argparse

from llsflow.cli.experiment import load, printed
from llsflow.plan import compile_plan


def command(options: argparse.Namespace) -> int:
    """Check, and say what was found."""
    loaded = load(options)
    if printed(options, loaded):
        return 0
    plan = compile_plan(loaded.experiment, options.config_dir)
    rows = sum(step.estimate.rows or 0 for step in plan.steps if step.kind == "prepare")
    told = f", {rows:,} training rows" if rows else ""
    print(f"{plan.experiment.name}: no mistakes; {len(plan.steps)} steps{told}")
    return 0

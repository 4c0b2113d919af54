"""What decides an agent's answers beside its model: its tools, its shields, and the code that runs them."""

from __future__ import annotations

from typing import Any

from llsflow.schema.experiment import Experiment
from llsflow.schema.toolgroups import PythonFunctions
from llsflow.steps import AGENTS, code_of


def agent_parts(experiment: Experiment) -> dict[str, Any]:
    """Return what identifies them, and what the step makes them from."""
    from llsflow.tools.python_functions import outside_code

    named = [
        name
        for group in experiment.toolgroups.values()
        if isinstance(group.provider, PythonFunctions)
        for name in group.provider.entry_points
    ]
    outside = {"tools": found} if (found := outside_code(named)) else {}
    return {
        **outside,
        "toolgroups": {name: one.model_dump(mode="json") for name, one in experiment.toolgroups.items()},
        "shields": {name: one.model_dump(mode="json") for name, one in experiment.shields.items()},
        "code": code_of(AGENTS),
    }

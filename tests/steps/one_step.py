"""Run one step of a plan in this process, and print the modules of llsflow that it loaded; nothing else is imported.

python one_step.py FILE KIND    FILE: the plan and its results, pickled
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

from llsflow.steps import STEPS
from llsflow.steps.context import Origin, StepContext
from llsflow.steps.opening import open_plan_run


def main(file: str, kind: str) -> None:
    plan, done = pickle.loads(Path(file).read_bytes())  # noqa: S301 - the test's own
    step = next(step for step in plan.steps if step.kind == kind)
    folder = Path.cwd() / kind
    folder.mkdir()
    with open_plan_run(plan, [], lambda: False, Origin("")) as plan_run:
        inputs = {role: done[name] for role, name in step.inputs.items()}
        STEPS[kind].function()(StepContext(step, inputs, folder, plan_run.run, plan_run))
    names = sorted(name for name in sys.modules if name.split(".")[0] == "llsflow")
    sys.stdout.write(json.dumps(names) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

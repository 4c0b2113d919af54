"""Step `reference`: the answers' log-probabilities under the model that a preference optimisation starts from."""

from __future__ import annotations

from typing import Any

import numpy as np

from llsflow.errors import Stopped
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.train import fit_inputs
from llsflow.training.batches import Examples
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import FitInputs, step_plan
from llsflow.training.reference import load_reference, reference_log_probabilities


def run(context: StepContext) -> dict[str, Any]:
    """Write `train.npy` and, where there is a validation set, `validation.npy`: [pairs, 2] in nats."""
    inputs = fit_inputs(context, recipe=context.step.locations["recipe"], trainer=context.step.locations["trainer"])
    wanted = {"train": _trained(inputs)}
    if inputs.validation is not None:
        wanted["validation"] = _validated(inputs, inputs.validation)
    model = load_reference(inputs)
    total, before = sum(len(examples) for examples in wanted.values()), 0

    def on_progress(done: int) -> None:
        context.report(Progress(before + done, total, "pairs"))
        if context.plan_run.stopping() and before + done < total:
            raise Stopped(f"stopped after {before + done} of {total} pairs under the reference")

    for part, examples in wanted.items():
        table = inputs.train if part == "train" else inputs.validation
        assert table is not None  # noqa: S101 - asked above
        found = reference_log_probabilities(model, inputs, table, examples, on_progress)
        np.save(context.folder / f"{part}.npy", found)
        before += len(examples)
    return {"pairs": total}


def _trained(inputs: FitInputs) -> Examples:
    return step_plan(inputs.train.lengths, inputs.recipe, inputs.seed, inputs.trainer.devices).examples()


def _validated(inputs: FitInputs, table: ExampleTable) -> Examples:
    config = inputs.recipe.training_config
    assert config.data_config is not None  # noqa: S101 - cross_checks refused it
    most = max(0, config.max_validation_steps or 0) * config.data_config.batch_size
    return np.arange(min(most or len(table), len(table)))

"""Step `train`: fine-tuning or preference optimisation, from its last checkpoint on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from llsflow import home
from llsflow.data.tokens import TokenTable
from llsflow.models.load import load_tokenizer
from llsflow.schema.training import Recipe, TrainerConfig
from llsflow.steps.checkpoints import facts_of
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.inputs import model_folder
from llsflow.steps.speed import remember
from llsflow.training.examples import ExampleTable
from llsflow.training.fit import fit
from llsflow.training.inputs import FitHooks, FitInputs, Sample
from llsflow.training.module import StepReport


def run(context: StepContext) -> dict[str, Any]:
    """Train into `checkpoints/`; the newest one is the result."""
    settings, where = context.step.settings, context.step.locations
    inputs = fit_inputs(
        context,
        recipe=_recipe(settings["recipe"], where["recipe"], where["datasets"]),
        trainer={**settings["trainer"], **where["trainer"]},
    )
    recipe = inputs.recipe
    context.run.log_params(_params(recipe))
    hooks = FitHooks(
        on_step=lambda report, total: context.report(_progress(report, total)),
        log=context.run.log_metrics,
        on_checkpoint=lambda checkpoint: context.report_checkpoint(facts_of(checkpoint)),
        on_samples=lambda samples, step: _keep_samples(context, samples, step),
        stopping=context.plan_run.stopping,
    )
    result = fit(inputs, context.folder, hooks)
    best = result.best
    speed = result.tokens / result.seconds if result.seconds else None
    if speed:
        remember(result.parameters, speed)
    return {
        "checkpoint": str(result.checkpoint.relative_to(context.folder)),
        "best": {
            "checkpoint": str(best.folder.relative_to(context.folder)),
            "step": best.step,
            "validation_loss": best.metrics["validation_loss"],
        }
        if best
        else None,
        "steps": result.steps,
        "parameters": result.parameters,
        "learning": result.learning,
        "resumed_from": result.resumed_from,
        "tokens_per_s": round(speed, 1) if speed else None,
        "train_loss": result.train_loss,
        "validation_loss": result.validation_loss,
        "validation": {
            name.removeprefix("val/"): {"first": points[0][1], "last": points[-1][1]}
            for name, points in result.curves.items()
            if name.startswith("val/")
        },
    }


def fit_inputs(context: StepContext, *, recipe: dict[str, Any], trainer: dict[str, Any]) -> FitInputs:
    """Return what the training is given: steps `reference` and `train` see the same.

    Args:
        context: of the step.
        recipe: the whole recipe.
        trainer: the whole trainer.
    """
    where = context.step.locations
    tables = Path(context.inputs["data"].folder)
    reference = Path(context.inputs["reference"].folder) if "reference" in context.inputs else None
    checked = Recipe.model_validate(recipe)
    paired = checked.kind == "dpo"

    def examples(part: str) -> ExampleTable:
        kept = np.load(reference / f"{part}.npy") if reference else None
        return ExampleTable(TokenTable.load(tables / part), paired, kept)

    return FitInputs(
        model=model_folder(context),
        load=where["load"],
        tokenizer=load_tokenizer(model_folder(context), **where["tokenizer"], needs_template=False),
        train=examples("train"),
        validation=examples("validation") if (tables / "validation").is_dir() else None,
        recipe=checked,
        trainer=TrainerConfig.model_validate(trainer),
        seed=context.step.settings["seed"] if "seed" in context.step.settings else where["seed"],
    )


def _keep_samples(context: StepContext, samples: list[Sample], step: int) -> None:
    """Keep what the model answered: in the step's folder, and on the run's page."""
    rows = [{"step": step, **asdict(sample)} for sample in samples]
    with home.storage_errors(context.folder), (context.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    context.run.log_table(rows, f"samples/step-{step:08d}.json")


def _recipe(keyed: dict[str, Any], free: dict[str, Any], datasets: dict[str, Any]) -> dict[str, Any]:
    training = keyed["training_config"]
    data = {**training["data_config"], **datasets}
    return {**keyed, **free, "training_config": {**training, "data_config": data}}


def _progress(report: StepReport, total: int) -> Progress:
    metrics = {"loss": report.loss, "lr": report.lr, "tokens/s": report.tokens / report.seconds}
    if "reward_accuracy" in report.metrics:
        metrics["reward accuracy"] = report.metrics["reward_accuracy"]
    return Progress(report.step, total, "steps", metrics)


def _params(recipe: Recipe) -> dict[str, Any]:
    config = recipe.training_config
    assert config.optimizer_config is not None  # noqa: S101 - cross_checks refused it
    assert config.data_config is not None  # noqa: S101 - as above
    return {
        **config.optimizer_config.model_dump(mode="json"),
        "n_epochs": config.n_epochs,
        "batch_size": config.data_config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "dtype": config.dtype,
        "lr_schedule": recipe.lr_schedule,
        "gradient_clip_norm": recipe.gradient_clip_norm,
        **(recipe.algorithm_config.model_dump(mode="json") if recipe.algorithm_config else {}),
        **(recipe.alignment_config.model_dump(mode="json") if recipe.alignment_config else {}),
    }

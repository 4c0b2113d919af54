"""Step `train`: supervised fine-tuning, from its last checkpoint on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llsflow.data.tokens import TokenTable
from llsflow.models.load import load_tokenizer
from llsflow.schema.training import Recipe, TrainerConfig
from llsflow.steps.checkpoints import facts_of
from llsflow.steps.context import Progress, StepContext
from llsflow.steps.prepare import model_folder
from llsflow.steps.speed import remember
from llsflow.training.fit import FitHooks, FitInputs, fit
from llsflow.training.sft import StepReport


def run(context: StepContext) -> dict[str, Any]:
    """Train into `checkpoints/`; the newest one is the result."""
    settings, where = context.step.settings, context.step.locations
    recipe = _recipe(settings["recipe"], where["recipe"], where["datasets"])
    tables = Path(context.inputs["data"].folder)
    validation = tables / "validation"
    inputs = FitInputs(
        model=model_folder(context),
        load=where["load"],
        tokenizer=load_tokenizer(model_folder(context), **where["tokenizer"]),
        train=TokenTable.load(tables / "train"),
        validation=TokenTable.load(validation) if validation.is_dir() else None,
        recipe=recipe,
        trainer=TrainerConfig.model_validate({**settings["trainer"], **where["trainer"]}),
        seed=settings["seed"],
    )
    context.run.log_params(_params(recipe))
    hooks = FitHooks(
        on_step=lambda report, total: context.report(_progress(report, total)),
        log=context.run.log_metrics,
        on_checkpoint=lambda checkpoint: context.report_checkpoint(facts_of(checkpoint)),
        stopping=context.plan_run.stopping,
    )
    result = fit(inputs, context.folder, hooks)
    speed = result.tokens / result.seconds if result.seconds else None
    if speed:
        remember(result.parameters, speed)
    return {
        "checkpoint": str(result.checkpoint.relative_to(context.folder)),
        "steps": result.steps,
        "parameters": result.parameters,
        "resumed_from": result.resumed_from,
        "tokens_per_s": round(speed, 1) if speed else None,
        "train_loss": result.train_loss,
        "validation_loss": result.validation_loss,
    }


def _recipe(keyed: dict[str, Any], free: dict[str, Any], datasets: dict[str, Any]) -> Recipe:
    training = keyed["training_config"]
    data = {**training["data_config"], **datasets}
    return Recipe.model_validate({**keyed, **free, "training_config": {**training, "data_config": data}})


def _progress(report: StepReport, total: int) -> Progress:
    metrics = {"loss": report.loss, "lr": report.lr, "tokens/s": report.tokens / report.seconds}
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
    }

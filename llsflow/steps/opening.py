"""The record of a run in MLflow: opened with what is known before the first step, closed with how it ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.errors import Stopped
from llsflow.schema.experiment import Experiment, TrackingConfig
from llsflow.schema.plan import Plan
from llsflow.steps.context import Origin, PlanRun, Watcher
from llsflow.tracking import Run, Tracking, provenance

logger = logging.getLogger("llsflow.steps")


@contextmanager
def open_plan_run(
    plan: Plan, watchers: list[Watcher], stopping: Callable[[], bool], origin: Origin
) -> Iterator[PlanRun]:
    """Open the plan's record in MLflow, and close it with how the run ended.

    A plan that did not finish goes on in the record it had.

    Raises:
        UnavailableError: MLflow does not answer.
        StorageError: LLSFLOW_HOME cannot be written.
        Stopped: the run is to stop already.
    """
    if stopping():
        raise Stopped("stopped before the first step")
    tracking = Tracking(plan.experiment.tracking)
    tracking.connect()
    memo = home.home() / "runs" / f"{plan.key[:16]}.json"
    _settle(tracking, but=memo)
    with home.alone(f"run-{memo.stem}") as alone:
        yield from _recorded(plan, watchers, stopping, origin, tracking, memo if alone else None)


def settle(config: TrackingConfig) -> None:
    """End the records in MLflow of runs whose process was killed, where none may come that goes on with them.

    Raises:
        UnavailableError: MLflow does not answer.
    """
    tracking = Tracking(config)
    tracking.connect()
    try:
        _settle(tracking)
    finally:
        tracking.close()


def _settle(tracking: Tracking, but: Path | None = None) -> None:
    """End the records of runs whose process was killed; a later run of the same plan opens them again."""
    for memo in (home.home() / "runs").glob("*.json"):
        run_id = home.read_json(memo)
        with home.alone(f"run-{memo.stem}") as dead:
            if dead and memo != but and isinstance(run_id, str):
                tracking.end_killed(run_id)


def _recorded(
    plan: Plan,
    watchers: list[Watcher],
    stopping: Callable[[], bool],
    origin: Origin,
    tracking: Tracking,
    memo: Path | None,
) -> Iterator[PlanRun]:
    """Yield the run; `memo` holds the id of the plan's unfinished record, None: another process writes in it."""
    run = tracking.open_run(
        plan.experiment.name,
        run_id=home.read_json(memo) if memo else None,
        tags={"llsflow.step": "pipeline", "llsflow.plan": plan.key, "llsflow.experiment": plan.experiment.name},
        description=plan.experiment.description,
    )
    if memo:
        with home.storage_errors(home.home()):
            home.write_json(memo, run.id)
    record_opening(run, plan, origin)
    logger.info("recorded as MLflow run %s", run.id)
    try:
        yield PlanRun(plan, tracking, run, watchers, stopping, origin)
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
        raise
    run.finish("FINISHED")
    if memo:
        memo.unlink(missing_ok=True)


def record_opening(run: Run, plan: Plan, origin: Origin) -> None:
    """Log what is known before the first step: parameters, the whole configuration and its provenance."""
    run.log_params(headline_params(plan.experiment))
    run.log_text(origin.config, "config/resolved.yaml")
    run.log_text("".join(f"{override}\n" for override in origin.overrides), "config/overrides.txt")
    known = {**provenance(), "seed": plan.experiment.seed, "data_sha256": data_digests(plan)}
    run.log_text(json.dumps(known, indent=2, ensure_ascii=False), "config/provenance.json")


def data_digests(plan: Plan) -> dict[str, str]:
    """Return the sha256 of every data set that the plan reads, by dataset_id."""
    digests: dict[str, str] = {}
    for step in plan.steps:
        if step.kind == "prepare":
            for part, place in step.locations["data"].items():
                digests[place["dataset_id"]] = step.settings["data"][part]["digest"]
        elif step.kind == "evaluate":
            digests[step.locations["data"]["dataset_id"]] = step.settings["data"]["digest"]
    return digests


def headline_params(experiment: Experiment) -> dict[str, Any]:
    """Return the parameters that tell runs apart, about 30 of them, under the names of the configuration."""
    params: dict[str, Any] = {"experiment": experiment.name, "seed": experiment.seed}
    model = experiment.model
    params["model"] = model.model_id
    params["model.path"] = model.path
    params["model.endpoint"] = model.endpoint.base_url if model.endpoint else None
    if model.init:
        architecture = model.init.architecture
        shown = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
        params |= {f"model.{name}": architecture[name] for name in shown if name in architecture}
    if experiment.recipe:
        recipe = experiment.recipe.model_dump(mode="json")
        training = recipe.pop("training_config")
        params |= training.pop("data_config") or {}
        params |= training.pop("optimizer_config") or {}
        training.pop("efficiency_config")
        params |= training | {name: value for name, value in recipe.items() if not isinstance(value, dict)}
    if experiment.benchmark:
        sampling = experiment.benchmark.benchmark_config.eval_candidate.model_dump(mode="json").get(
            "sampling_params", {}
        )
        params["benchmark"] = experiment.benchmark.benchmark_id
        params["scoring_functions"] = ", ".join(experiment.benchmark.scoring_functions)
        params["sampling"] = sampling.get("strategy", {}).get("type")
        params["max_tokens"] = sampling.get("max_tokens")
    params |= {f"trainer.{name}": value for name, value in experiment.trainer.model_dump(mode="json").items()}
    return {name: value for name, value in params.items() if value is not None}

"""From a posted body to the experiment that `llsflow run` would run."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from llsflow import home
from llsflow.errors import ConfigError, Mistake, NotFoundError
from llsflow.schema.benchmarks import BenchmarkConfig, ExperimentBenchmark, ModelCandidate
from llsflow.schema.datasets import HELD_OUT, DatasetConfig
from llsflow.schema.experiment import Experiment, TrackingConfig, cross_checks, referenced_datasets
from llsflow.schema.jobs import PreferenceOptimizeRequest, SupervisedFineTuneRequest
from llsflow.schema.models import ModelConfig
from llsflow.schema.server import ServerConfig
from llsflow.schema.training import Recipe

TRACKING_KEYS = ("experiment", "register_as", "register_model")
RECIPE_KEYS = ("log_every_n_steps",)


class Names(Protocol):
    """What the names in a request stand for."""

    def dataset(self, dataset_id: str) -> DatasetConfig | None:
        """Return the data set of that name, as it is now; None: there is none."""

    def datasets(self) -> Sequence[str]:
        """Return every name of a data set."""

    def model(self, model_id: str) -> ModelConfig | None:
        """Return the model of that name; None: there is none."""

    def models(self) -> Sequence[str]:
        """Return every name of a model."""


def fine_tuning(request: SupervisedFineTuneRequest, server: ServerConfig, names: Names) -> Experiment:
    """Return the experiment of a fine-tuning job.

    Raises:
        ConfigError: everything in the request that cannot be done, at once.
        NotFoundError: a data set or model that is not there.
    """
    mistakes = [*_search_mistakes(request.hyperparam_search_config), *_logger_mistakes(request.logger_config)]
    model_id = request.model or server.default_model
    if model_id is None:
        mistakes.append(Mistake("model", f"is missing: known are {_known(names.models())}"))
    data = request.training_config.data_config
    if data is None:
        mistakes.append(Mistake("training_config.data_config", "is missing: a training job needs its data"))
    copy_to = _model_folder(request.checkpoint_dir)
    if request.checkpoint_dir and copy_to is None:
        message = f"found {request.checkpoint_dir!r}, allowed: a folder below {_models()}, or a relative path"
        mistakes.append(Mistake("checkpoint_dir", message))
    if mistakes or model_id is None or data is None:
        raise ConfigError(mistakes)
    datasets = _datasets([data.dataset_id, data.validation_dataset_id], names)
    training = datasets.pop(data.dataset_id.removesuffix(HELD_OUT))
    recipe: dict[str, Any] = {
        "kind": "sft",
        "training_config": request.training_config.model_dump(mode="json"),
        "algorithm_config": request.algorithm_config,
        "checkpoint_every_n_steps": server.jobs.checkpoint_every_n_steps,
        "keep_checkpoints": None,
        "checkpoint_dir": str(copy_to) if copy_to else None,
        **{key: request.logger_config[key] for key in RECIPE_KEYS if key in request.logger_config},
    }
    tracking = {key: request.logger_config[key] for key in TRACKING_KEYS if key in request.logger_config}
    try:
        experiment = Experiment(
            name=request.job_uuid,
            description="Fine-tuning job of the API.",
            model=known_model(model_id, names),
            dataset=training,
            datasets=datasets,
            recipe=Recipe.model_validate(recipe),
            tracking=TrackingConfig.model_validate(tracking),
        )
    except ValidationError as error:
        raise ConfigError([Mistake(_place(e["loc"]), e["msg"]) for e in error.errors()]) from error
    return _checked(experiment)


def preference_optimisation(request: PreferenceOptimizeRequest, names: Names) -> Experiment:
    """Refuse the job, with everything else that is wrong with it.

    Raises:
        ConfigError: always: preference optimisation is not available yet.
        NotFoundError: the model to start from is not there.
    """
    known_model(request.finetuned_model, names)
    message = "preference optimisation is not available yet: use supervised-fine-tune"
    raise ConfigError([*_search_mistakes(request.hyperparam_search_config), Mistake("algorithm_config", message)])


def evaluation(
    job_id: str,
    benchmark_id: str,
    dataset_id: str,
    scoring_functions: Sequence[str],
    config: BenchmarkConfig,
    names: Names,
) -> Experiment:
    """Return the experiment of an evaluation job.

    Raises:
        ConfigError: everything in the request that cannot be done, at once.
        NotFoundError: a data set or model that is not there.
    """
    candidate = config.eval_candidate
    assert isinstance(candidate, ModelCandidate)  # noqa: S101 - the schema refused agents
    model = known_model(candidate.model, names)
    # a model may be asked for by the name of its file too
    named = config.model_copy(update={"eval_candidate": candidate.model_copy(update={"model": model.model_id})})
    experiment = Experiment(
        name=job_id,
        description=f"Evaluation job of the API: {benchmark_id}.",
        model=model,
        datasets=_datasets([dataset_id], names),
        benchmark=ExperimentBenchmark(
            benchmark_id=benchmark_id,
            dataset_id=dataset_id,
            scoring_functions=list(scoring_functions),
            benchmark_config=named,
        ),
    )
    return _checked(experiment)


def _models() -> Path:
    return home.home() / "models"


def _model_folder(named: str | None) -> Path | None:
    """Return the folder below LLSFLOW_HOME/models that a request names; None: it names none, or one elsewhere."""
    if not named or "\0" in named:
        return None
    folder = (_models() / named).resolve()
    return folder if folder.is_relative_to(_models()) and folder != _models() else None


def registered_datasets(experiment: Experiment) -> list[str]:
    """Return the ids of the registered data sets that the experiment reads."""
    catalogue = experiment.catalogue()
    used = {dataset_id.removesuffix(HELD_OUT) for _, dataset_id in referenced_datasets(experiment)}
    return sorted(name for name in used if (catalogue[name].uri or "").startswith("store://"))


def known_model(model_id: str, names: Names) -> ModelConfig:
    """Return the model of that name.

    Raises:
        NotFoundError: there is none; names the nearest.
    """
    model = names.model(model_id)
    if model is None:
        raise NotFoundError(f"no model {model_id!r}{_near(model_id, names.models())}")
    return model


def _checked(experiment: Experiment) -> Experiment:
    mistakes = [Mistake(_place(loc), message) for loc, message in cross_checks(experiment)]
    if mistakes:
        raise ConfigError(mistakes)
    return experiment


def _place(loc: Sequence[str | int]) -> str:
    """Return where a field of the experiment stands in the request."""
    return ".".join(map(str, loc)).removeprefix("recipe.").removeprefix("benchmark.")


def _datasets(dataset_ids: Sequence[str | None], names: Names) -> dict[str, DatasetConfig]:
    found: dict[str, DatasetConfig] = {}
    for dataset_id in dataset_ids:
        base = (dataset_id or "").removesuffix(HELD_OUT)
        if not base or base in found:
            continue
        dataset = names.dataset(base)
        if dataset is None:
            raise NotFoundError(f"no data set {base!r}{_near(base, names.datasets())}")
        found[base] = dataset
    return found


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {_known(known)}"


def _known(names: Sequence[str]) -> str:
    shown = sorted(names)[:20]
    return (", ".join(shown) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _search_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    if config:
        found = ", ".join(map(str, config))
        yield Mistake(
            "hyperparam_search_config",
            f"found {found}: searches are not available; send {{}} and post a job for each point",
        )


def _logger_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    allowed = (*TRACKING_KEYS, *RECIPE_KEYS)
    for key in config:
        if key not in allowed:
            yield Mistake(f"logger_config.{key}", f"unknown: allowed are {', '.join(allowed)}")

"""From a posted body to the experiment that `llsflow run` would run."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from llsflow import home
from llsflow.config.named import SHIELDS, TOOLGROUPS, Named
from llsflow.errors import ConfigError, ConflictError, Mistake, MistakesError, NotFoundError
from llsflow.schema.base import Record
from llsflow.schema.benchmarks import (
    BenchmarkConfig,
    Candidate,
    ExperimentBenchmark,
    candidate_model,
    with_model,
)
from llsflow.schema.datasets import HELD_OUT, DatasetConfig
from llsflow.schema.experiment import (
    Experiment,
    TrackingConfig,
    agent_names,
    asked_models,
    cross_checks,
    referenced_datasets,
)
from llsflow.schema.jobs import PreferenceOptimizeRequest, SupervisedFineTuneRequest
from llsflow.schema.kinds import Kind, listed, mistake_in_words, or_known, untagged
from llsflow.schema.models import ModelConfig
from llsflow.schema.server import ServerConfig
from llsflow.schema.training import Recipe

PARTS: Mapping[str, Named[Any]] = {"toolgroup": TOOLGROUPS, "shield": SHIELDS}
"""Groups of conf that an agent's parts are looked up in."""

TRACKING_KEYS = ("experiment", "register_as", "register_model")
RECIPE_KEYS = ("log_every_n_steps",)

DATASET_PLACES = ("training_config.data_config.dataset_id", "training_config.data_config.validation_dataset_id")

CHECKPOINT = re.compile(r":step-\d+$")
"""How the names of checkpoints end, which are models beside those that jobs end with."""

R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=MistakesError)


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
        ConflictError: the job's name is that of a model.
        NotFoundError: data sets and a model that are not there.
    """
    mistakes = []
    model_id = request.model or server.default_model
    if model_id is None:
        mistakes.append(Mistake("model", f"is missing: known are {listed(sorted(names.models()))}"))
    copy_to = _model_folder(request.checkpoint_dir)
    if request.checkpoint_dir and copy_to is None:
        message = f"found {request.checkpoint_dir!r}, allowed: a folder below {_models()}, or a relative path"
        mistakes.append(Mistake("checkpoint_dir", message))
    recipe = {
        "kind": "sft",
        "algorithm_config": request.algorithm_config,
        "checkpoint_dir": str(copy_to) if copy_to else None,
    }
    started = _Start(model_id, "model", recipe, "Fine-tuning job of the API.")
    return _training(request, started, server, names, mistakes)


def preference_optimisation(request: PreferenceOptimizeRequest, server: ServerConfig, names: Names) -> Experiment:
    """Return the experiment of a job of preference optimisation, which trains every weight.

    Raises:
        ConfigError: everything in the request that cannot be done, at once.
        ConflictError: the job's name is that of a model.
        NotFoundError: data sets and a model that are not there.
    """
    recipe = {"kind": "dpo", "alignment_config": request.algorithm_config.model_dump(mode="json")}
    started = _Start(request.finetuned_model, "finetuned_model", recipe, "Preference optimisation job of the API.")
    return _training(request, started, server, names, [])


@dataclass(frozen=True)
class _Start:
    """Where a training job starts from, and how."""

    model_id: str | None
    place: str
    """Where the request names the model."""
    recipe: dict[str, Any]
    description: str


def _training(
    request: SupervisedFineTuneRequest | PreferenceOptimizeRequest,
    start: _Start,
    server: ServerConfig,
    names: Names,
    mistakes: list[Mistake],
) -> Experiment:
    mistakes += [*_name_mistakes(request.job_uuid), *_search_mistakes(request.hyperparam_search_config)]
    data = request.training_config.data_config
    if data is None:
        mistakes.append(Mistake("training_config.data_config", "is missing: a training job needs its data"))
    tracking, every = _logging(request.logger_config, mistakes)
    recipe = _made(
        Recipe,
        {
            **start.recipe,
            "training_config": request.training_config.model_dump(mode="json"),
            "checkpoint_every_n_steps": server.jobs.checkpoint_every_n_steps,
            "keep_checkpoints": None,
            **every,
        },
        mistakes,
    )
    wanted = [name for name in (data.dataset_id, data.validation_dataset_id) if name] if data else []
    missing = _missing((start.place, start.model_id), wanted, names)
    if mistakes or start.model_id is None or recipe is None or tracking is None:
        raise ConfigError([*mistakes, *missing])
    if missing:
        raise NotFoundError("\n".join(mistake.message for mistake in missing))
    if names.model(request.job_uuid) is not None:
        raise ConflictError(
            f"{request.job_uuid!r} is a model already, as the job's own would be: take another job_uuid"
        )
    datasets = _datasets(wanted, names)
    training = datasets.pop(wanted[0].removesuffix(HELD_OUT))
    return _checked(
        Experiment(
            name=request.job_uuid,
            description=start.description,
            model=known_model(start.model_id, names),
            dataset=training,
            datasets=datasets,
            recipe=recipe,
            tracking=tracking,
        )
    )


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
    model = known_model(candidate_model(candidate), names)
    # a model may be asked for by the name of its file too
    named = config.model_copy(update={"eval_candidate": with_model(candidate, model.model_id)})
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
    judges = {name: known_model(name, names) for _, name, _ in asked_models(experiment)}
    return _checked(experiment.model_copy(update={"models": judges, **agent_parts(named.eval_candidate)}))


def agent_parts(candidate: Candidate) -> dict[str, dict[str, Any]]:
    """Return the tool groups and shields of an agent that is evaluated, by the fields of an experiment.

    Raises:
        ConfigError: some are not there, or their files have mistakes: everything at once.
    """
    found: dict[str, dict[str, Any]] = {"toolgroups": {}, "shields": {}}
    mistakes: list[Mistake] = []
    for loc, group, name in agent_names(candidate):
        try:
            found[f"{group}s"] |= _named(group, name)
        except NotFoundError as error:
            mistakes.append(Mistake(_place(loc), str(error)))
        except ConfigError as error:
            mistakes += [Mistake(_place(loc), str(mistake)) for mistake in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)
    return found


def _named(group: str, name: str) -> dict[str, Record]:
    try:
        return {name: PARTS[group].find(name)}
    except NotFoundError:
        base = name.rpartition("/")[0]
        if group != "toolgroup" or not base:
            raise
        return {base: PARTS[group].find(base)}


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
        raise NotFoundError(f"no model {model_id!r}{or_known(model_id, sorted(names.models()))}")
    return model


def _checked(experiment: Experiment) -> Experiment:
    mistakes = [Mistake(_place(loc), message) for loc, message in cross_checks(experiment)]
    if mistakes:
        raise ConfigError(mistakes)
    return experiment


def in_the_request(error: E) -> E:
    """Return the error with each place as it stands in the request."""
    return type(error)([Mistake(_place(mistake.where.split(".")), mistake.message) for mistake in error.mistakes])


def _place(loc: Sequence[str | int]) -> str:
    """Return where a field of the experiment stands in the request."""
    return ".".join(map(str, loc)).removeprefix("recipe.").removeprefix("benchmark.")


def known_dataset(dataset_id: str, names: Names) -> DatasetConfig:
    """Return the data set of that name, as it is now.

    Raises:
        NotFoundError: there is none; names the nearest.
    """
    dataset = names.dataset(dataset_id)
    if dataset is None:
        raise NotFoundError(f"no data set {dataset_id!r}{or_known(dataset_id, sorted(names.datasets()))}")
    return dataset


def _datasets(dataset_ids: Sequence[str], names: Names) -> dict[str, DatasetConfig]:
    bases = dict.fromkeys(dataset_id.removesuffix(HELD_OUT) for dataset_id in dataset_ids)
    return {base: known_dataset(base, names) for base in bases}


def _missing(model: tuple[str, str | None], dataset_ids: Sequence[str], names: Names) -> list[Mistake]:
    """Return what is not there; `model` is its place in the request and its name."""
    asked: list[tuple[str, Callable[[], object]]] = [
        (place, functools.partial(known_dataset, dataset_id.removesuffix(HELD_OUT), names))
        for place, dataset_id in zip(DATASET_PLACES, dataset_ids, strict=False)
    ]
    place, model_id = model
    if model_id is not None:
        asked.append((place, functools.partial(known_model, model_id, names)))
    found = []
    for place, look in asked:
        try:
            look()
        except NotFoundError as error:
            found.append(Mistake(place, str(error)))
    return found


def _search_mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    if config:
        found = ", ".join(map(str, config))
        yield Mistake(
            "hyperparam_search_config",
            f"found {found}: searches are not available; send {{}} and post a job for each point",
        )


def _name_mistakes(job_uuid: str) -> Iterator[Mistake]:
    if CHECKPOINT.search(job_uuid):
        message = f"{job_uuid!r} ends as the names of checkpoints do (:step-N): take another"
        yield Mistake("job_uuid", message)


def _logging(config: Mapping[str, Any], mistakes: list[Mistake]) -> tuple[TrackingConfig | None, dict[str, Any]]:
    """Return the record and the fields of the recipe that a request's logger_config stands for."""
    allowed = (*TRACKING_KEYS, *RECIPE_KEYS)
    unknown = [key for key in config if key not in allowed]
    mistakes += [Mistake(f"logger_config.{key}", f"unknown: allowed are {', '.join(allowed)}") for key in unknown]
    tracking = _made(TrackingConfig, {key: config[key] for key in TRACKING_KEYS if key in config}, mistakes)
    return tracking, {key: config[key] for key in RECIPE_KEYS if key in config}


def _made(record: type[R], values: Mapping[str, Any], mistakes: list[Mistake]) -> R | None:
    """Return the record of these values; what is wrong with them joins the mistakes, where it stands in the request."""
    try:
        return record.model_validate(values)
    except ValidationError as error:
        root = Kind((record,))
        for details in error.errors(include_url=False):
            loc, _ = untagged(details["loc"], root)
            kind: Kind | None = root
            for part in loc:
                kind = kind.child(part) if kind else None
            logged = bool(loc) and loc[0] in (*TRACKING_KEYS, *RECIPE_KEYS)
            place = _place(("logger_config", *loc) if logged else loc)
            mistakes.append(Mistake(place or "training_config", mistake_in_words(details, kind)))
        return None

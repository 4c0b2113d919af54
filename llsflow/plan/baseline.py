"""The model that a benchmark's candidate is compared with, where it is not the one that training begins with."""

from __future__ import annotations

from pathlib import Path

from llsflow.errors import ModelError
from llsflow.plan import models
from llsflow.plan.models import FoundModel
from llsflow.schema.benchmarks import CHAMPION
from llsflow.schema.experiment import Experiment, champion_name
from llsflow.schema.models import ModelConfig


def find_baseline(experiment: Experiment) -> FoundModel | None:
    """Return the baseline that the benchmark names.

    None: it names none, or the champion of a model that has none yet and is to be trained.

    Raises:
        LlsflowError: there is no such model, or it cannot be used.
    """
    name = experiment.benchmark.baseline if experiment.benchmark else None
    if name is None:
        return None
    if name != CHAMPION:
        return models.find(_named(experiment, name))
    folder = champion(experiment)
    if folder is None:
        return None
    return models.find(ModelConfig(model_id=CHAMPION, model_type=experiment.model.model_type, path=str(folder)))


def champion(experiment: Experiment) -> Path | None:
    """Return the folder of the version that has MLflow's alias `champion`; None: none has yet, and training is to come.

    Raises:
        ModelError: there is nothing that could be compared with.
        UnavailableError: MLflow does not answer.
    """
    from llsflow.tracking import Tracking

    name = champion_name(experiment)
    tracking = Tracking(experiment.tracking)
    folder = tracking.folder_of_alias(name, CHAMPION)
    tracking.close()
    if folder is None:
        if experiment.recipe:
            return None
        raise ModelError(
            f"no version of {name!r} has the alias {CHAMPION!r} in MLflow yet: train with a gate first, set "
            "tracking.register_as to the name of a registered model, or name another baseline"
        )
    if not folder.is_dir():
        raise ModelError(
            f"the {CHAMPION} of {name!r} is {str(folder)!r}, and that is not there: move the alias in MLflow to a "
            "version whose folder is there, or name another baseline"
        )
    return folder


def _named(experiment: Experiment, name: str) -> ModelConfig:
    """Return the model of a name of conf/model or a checkpoint, else of a folder or hub id."""
    known = experiment.named_model(name)
    return known or ModelConfig(model_id="baseline", model_type=experiment.model.model_type, path=name)

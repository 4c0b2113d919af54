"""A posted body is the experiment that `llsflow run` would run: the same plan, from the body and from its YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llsflow.config import load_experiment
from llsflow.data.registration import register
from llsflow.errors import ConfigError, ConflictError, NotFoundError
from llsflow.jobs import requests
from llsflow.jobs.compiling import compile_job, write_config
from llsflow.jobs.names import CatalogueNames
from llsflow.plan import compile_plan
from llsflow.schema.benchmarks import BenchmarkConfig
from llsflow.schema.datasets import RegisterDatasetRequest
from llsflow.schema.experiment import Experiment
from llsflow.schema.jobs import PreferenceOptimizeRequest, SupervisedFineTuneRequest
from llsflow.schema.server import ServerConfig
from llsflow.store import Store

SERVER = ServerConfig(default_model="tiny-llama")
ROWS = [{"prompt": f"say {number}", "completion": f"{number}!"} for number in range(20)]
QUESTIONS = [{"question": f"what is {number}?", "answer": str(number)} for number in range(5)]


@pytest.fixture
def names(store: Store) -> CatalogueNames:
    """The catalogue with one data set to train on and one to ask."""
    for dataset_id, purpose, rows in (
        ("mine", "post-training/messages", ROWS),
        ("asked", "eval/question-answer", QUESTIONS),
    ):
        body = {"dataset_id": dataset_id, "purpose": purpose, "source": {"type": "rows", "rows": rows}}
        register(store, RegisterDatasetRequest.model_validate(body), SERVER)
    return CatalogueNames(store)


def body(**changes: Any) -> dict[str, Any]:
    """Return a fine-tuning request of the official client, with changes by dotted key."""
    found: dict[str, Any] = {
        "job_uuid": "j1",
        "model": "tiny-llama",
        "hyperparam_search_config": {},
        "logger_config": {},
        "training_config": {
            "n_epochs": 1,
            "max_steps_per_epoch": 2,
            "gradient_accumulation_steps": 1,
            "dtype": "fp32",
            "data_config": {"dataset_id": "mine", "batch_size": 4, "shuffle": True, "data_format": "instruct"},
            "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.0, "num_warmup_steps": 1},
        },
    }
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = found
        for parent in parents:
            place = place[parent]
        place[last] = value
    return found


def fine_tuning(names: CatalogueNames, **changes: Any) -> Any:
    request = SupervisedFineTuneRequest.model_validate(body(**changes), extra="ignore")
    return requests.fine_tuning(request, SERVER, names)


def test_every_field_of_the_body_is_in_the_experiment(names: CatalogueNames) -> None:
    experiment = fine_tuning(
        names, logger_config={"experiment": "mine", "log_every_n_steps": 3, "register_model": False}
    )
    assert experiment.name == "j1"
    assert experiment.model.model_id == "tiny-llama"
    assert experiment.dataset.uri.startswith("store://mine?rows=20&digest=")
    assert experiment.recipe.training_config.optimizer_config.lr == 1e-3
    assert experiment.recipe.log_every_n_steps == 3
    assert experiment.recipe.keep_checkpoints is None
    assert (experiment.tracking.experiment, experiment.tracking.register_model) == ("mine", False)


def test_the_copy_of_the_model_lies_below_the_home(names: CatalogueNames, llsflow_home: Path) -> None:
    below = llsflow_home.resolve() / "models" / "mine"
    assert fine_tuning(names, checkpoint_dir="mine").recipe.checkpoint_dir == str(below)
    assert fine_tuning(names, checkpoint_dir=str(below)).recipe.checkpoint_dir == str(below)
    assert fine_tuning(names).recipe.checkpoint_dir is None


def test_a_request_that_names_no_model_trains_the_servers(names: CatalogueNames) -> None:
    assert fine_tuning(names, model=None).model.model_id == "tiny-llama"
    request = SupervisedFineTuneRequest.model_validate(body(model=None))
    with pytest.raises(ConfigError, match=r"model: is missing: known are bm25, llama-3.2-1b-instruct, .*, tiny-llama"):
        requests.fine_tuning(request, ServerConfig(), names)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hyperparam_search_config": {"lr": [1, 2]}}, "hyperparam_search_config: found lr"),
        ({"logger_config": {"log_dir": "/tmp"}}, "logger_config.log_dir: unknown: allowed are experiment"),
        (
            {"logger_config": {"log_every_n_steps": 0}},
            "logger_config.log_every_n_steps: found 0, allowed: an integer of at least 1",
        ),
        ({"logger_config": {"experiment": "${HOME}"}}, "logger_config.experiment: found '${HOME}', allowed: a name of"),
        (
            {"algorithm_config": {"type": "QAT", "quantizer_name": "int4", "group_size": 32}},
            "algorithm_config: QAT is not available: its result runs only in torchao's own format",
        ),
        ({"job_uuid": "j0:step-8"}, "job_uuid: 'j0:step-8' ends as the names of checkpoints do (:step-N)"),
        ({"training_config__data_config": None}, "training_config.data_config: is missing"),
        ({"checkpoint_dir": "/tmp/elsewhere"}, "checkpoint_dir: found '/tmp/elsewhere', allowed: a folder below"),
        ({"checkpoint_dir": "../steps"}, "checkpoint_dir: found '../steps'"),
        ({"checkpoint_dir": "."}, "checkpoint_dir: found '.'"),
        ({"training_config__optimizer_config": None}, "training_config.optimizer_config: needed"),
        ({"training_config__data_config__dataset_id": "asked"}, "training takes post-training/messages"),
        ({"training_config__data_config__validation_dataset_id": "mine:held_out"}, "holds no rows out"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place(
    names: CatalogueNames, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        fine_tuning(names, **changes)
    assert told in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(names: CatalogueNames) -> None:
    with pytest.raises(ConfigError) as refused:
        fine_tuning(
            names,
            model="tiny-lama",
            training_config__data_config__dataset_id="miner",
            logger_config={"log_dir": "/tmp", "experiment": 3},
            checkpoint_dir="..",
        )
    assert [mistake.where for mistake in refused.value.mistakes] == [
        "checkpoint_dir",
        "logger_config.log_dir",
        "logger_config.experiment",
        "training_config.data_config.dataset_id",
        "model",
    ]


@pytest.mark.parametrize("taken", ["tiny-llama", "tiny_llama"])  # the latter by the name of its file
def test_no_job_takes_the_name_of_a_model(names: CatalogueNames, taken: str) -> None:
    with pytest.raises(ConflictError, match=f"'{taken}' is a model already"):
        fine_tuning(names, job_uuid=taken)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "tiny-lama"}, "no model 'tiny-lama'; did you mean 'tiny-llama'?"),
        ({"training_config__data_config__dataset_id": "miner"}, "no data set 'miner'; did you mean 'mine'?"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(names: CatalogueNames, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        fine_tuning(names, **changes)
    assert told in str(refused.value)


def optimisation(names: CatalogueNames, **changes: Any) -> Experiment:
    sent = {
        "job_uuid": "p1",
        "finetuned_model": "tiny-llama",
        "algorithm_config": {"beta": 0.2, "loss_type": "ipo"},
        "training_config": body()["training_config"],
        **changes,
    }
    return requests.preference_optimisation(PreferenceOptimizeRequest.model_validate(sent), ServerConfig(), names)


def test_a_preference_optimisation_is_the_recipe_of_kind_dpo(names: CatalogueNames) -> None:
    recipe = optimisation(names).recipe
    assert recipe is not None
    assert recipe.alignment_config is not None
    assert (recipe.kind, recipe.alignment_config.beta, recipe.alignment_config.loss_type) == ("dpo", 0.2, "ipo")
    assert recipe.algorithm_config is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"finetuned_model": "tiny-lama"}, "no model 'tiny-lama'; did you mean 'tiny-llama'?"),
        ({"hyperparam_search_config": {"lr": [1]}}, "hyperparam_search_config: found lr: searches are not available"),
        ({"job_uuid": "p:step-3"}, "job_uuid: 'p:step-3' ends as the names of checkpoints do"),
    ],
)
def test_a_preference_optimisation_that_cannot_be(names: CatalogueNames, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigError, NotFoundError), match=re.escape(told)):
        optimisation(names, **changes)


def test_an_evaluation_takes_the_model_by_the_name_of_its_file_too(names: CatalogueNames) -> None:
    config = BenchmarkConfig.model_validate(
        {"eval_candidate": {"type": "model", "model": "tiny_llama", "sampling_params": {"max_tokens": 4}}}
    )
    experiment = requests.evaluation("e1", "b1", "asked", ["basic::equality"], config, names)
    assert experiment.model.model_id == "tiny-llama"
    assert requests.registered_datasets(experiment) == ["asked"]


training_configs = st.fixed_dictionaries(
    {
        "n_epochs": st.integers(1, 5),
        "max_steps_per_epoch": st.integers(0, 9),
        "gradient_accumulation_steps": st.integers(1, 4),
        "max_validation_steps": st.none() | st.integers(-1, 5),
        "dtype": st.sampled_from(["fp32", "bf16", None]),
        "data_config": st.fixed_dictionaries(
            {
                "dataset_id": st.just("mine"),
                "batch_size": st.integers(1, 9),
                "shuffle": st.booleans(),
                "data_format": st.sampled_from(["instruct", "dialog"]),
                "train_on_input": st.booleans() | st.none(),
            }
        ),
        "optimizer_config": st.fixed_dictionaries(
            {
                "optimizer_type": st.sampled_from(["adam", "adamw", "sgd"]),
                "lr": st.floats(1e-9, 1),
                "weight_decay": st.floats(0, 1),
                "num_warmup_steps": st.integers(0, 50),
            }
        ),
    }
)


@pytest.fixture(name="compiled")
def _compiled(names: CatalogueNames, tmp_path: Path) -> Callable[[dict[str, Any]], tuple[str, str]]:
    """Return the plan keys of a body: compiled as the API does, and by `llsflow run --config` of its YAML."""

    def keys(training: dict[str, Any]) -> tuple[str, str]:
        experiment = fine_tuning(names, training_config=training)
        made = compile_job(experiment)
        file = write_config("j1", made.config)
        again = compile_plan(load_experiment(None, [], config_file=file).experiment)
        return made.plan_key, again.key

    return keys


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(training=training_configs)
def test_the_body_and_its_yaml_are_one_plan(
    compiled: Callable[[dict[str, Any]], tuple[str, str]], training: dict[str, Any]
) -> None:
    by_api, by_yaml = compiled(training)
    assert by_api == by_yaml


def test_the_quickstart_by_api_is_the_quickstart(names: CatalogueNames) -> None:
    """The same rows, model and numbers have the same steps, wherever they were written."""
    quickstart = compile_plan(load_experiment("quickstart", []).experiment)
    recipe = load_experiment("quickstart", []).experiment.recipe
    assert recipe is not None
    training = recipe.training_config.model_dump(mode="json")
    by_api = compile_plan(fine_tuning(names, training_config=training))
    for step in ("model", "prepare", "train", "export"):
        assert by_api.step(step).key == quickstart.step(step).key

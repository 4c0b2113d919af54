"""What a model id stands for: complete files of conf/model, and checkpoints wherever their training is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from llsflow import home
from llsflow.config import load_experiment
from llsflow.data.catalogue import registered
from llsflow.errors import NotFoundError
from llsflow.models.catalogue import checkpoint_folder, find_model, known_models, list_models, ready_folder
from llsflow.models.describe import locate
from llsflow.models.load import load_model
from llsflow.schema.jobs import JobStatus
from llsflow.schema.models import ModelConfig
from llsflow.store import Store, StoredCheckpoint, StoredJob
from tests.models.conftest import PRESETS


@pytest.fixture
def conf(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    """A conf folder with whole and open models."""
    folder = tmp_path / "conf"
    files: dict[str, Any] = {
        "mine": {"model_id": "org/mine-1", "path": "/models/mine"},
        "made": {"model_id": "made", "init": {"architecture": tiny}},
        "open": {"model_id": "open", "path": "???"},
        "named": {"model_id": "named", "path": "${oc.env:HOME}/x"},
        "composed": {"defaults": ["mine"], "model_id": "composed"},
        "wrong": {"model_id": "wrong", "path": 3},
    }
    (folder / "model").mkdir(parents=True)
    for name, values in files.items():
        (folder / "model" / f"{name}.yaml").write_text(yaml.safe_dump(values))
    (folder / "model" / "broken.yaml").write_text("a: [")
    return folder


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open() as opened:
        yield opened


def checkpoint(
    store: Store, identifier: str = "job:step-4", path: str = "train-ab/checkpoints/step-4"
) -> StoredCheckpoint:
    now = datetime.now(UTC)
    job = StoredJob(
        job_id="job",
        kind="post-training",
        request={},
        request_digest="d",
        config="",
        plan_key="p",
        status=JobStatus.IN_PROGRESS,
        created_at=now,
    )
    store.jobs.create(job)
    made = StoredCheckpoint(identifier, "job", 4, 0, path, now, {})
    store.jobs.add_checkpoint(made)
    return made


def test_complete_files_are_models_and_templates_are_not(conf: Path, store: Store) -> None:
    assert [model.model_id for model in list_models(conf)] == sorted([*PRESETS, "made", "org/mine-1", "tiny-llama"])
    by_id, by_file = find_model("org/mine-1", store, conf), find_model("mine", store, conf)
    assert by_id == by_file == ModelConfig(model_id="org/mine-1", path="/models/mine")
    assert find_model("open", store, conf) is None
    assert find_model("/etc", store, conf) is None, "a path is no model id"


def test_a_file_that_changed_is_read_again(conf: Path, store: Store) -> None:
    assert find_model("mine", store, conf) is not None
    file = conf / "model" / "mine.yaml"
    file.write_text("model_id: other\npath: /models/other-one\n")
    assert find_model("org/mine-1", store, conf) is None
    assert find_model("other", store, conf) == ModelConfig(model_id="other", path="/models/other-one")


def test_a_checkpoint_is_found_while_its_training_goes_on_and_afterwards(conf: Path, store: Store) -> None:
    made = checkpoint(store)
    with pytest.raises(NotFoundError, match="files of checkpoint 'job:step-4' are gone"):
        find_model("job:step-4", store, conf)
    working = home.home() / "work" / made.path
    working.mkdir(parents=True)
    assert find_model("job:step-4", store, conf) == ModelConfig(model_id="job:step-4", path=str(working))
    done = home.home() / "steps" / made.path
    done.parent.parent.parent.mkdir(parents=True)
    (home.home() / "work" / "train-ab").rename(home.home() / "steps" / "train-ab")
    assert find_model("job:step-4", store, conf) == ModelConfig(model_id="job:step-4", path=str(done))
    assert known_models(store, conf) == [*sorted([*PRESETS, "made", "org/mine-1", "tiny-llama"]), "job:step-4"]


def test_the_command_line_knows_a_checkpoint_by_its_name(store: Store, tiny_folder: Path) -> None:
    folder = home.home() / "work" / checkpoint(store).path
    shutil.copytree(tiny_folder, folder)
    loaded = load_experiment("eval", ["model=job:step-4"], registered=registered)
    assert loaded.experiment.model == ModelConfig(model_id="job:step-4", path=str(folder))


def test_a_checkpoint_that_was_named_during_its_training_is_found_after_it(store: Store, tiny_folder: Path) -> None:
    """An evaluation job keeps the path in its YAML, and may begin when the training is done."""
    made = checkpoint(store)
    shutil.copytree(tiny_folder, home.home() / "work" / made.path)
    model = find_model(made.identifier, store)
    assert model is not None
    assert model.path is not None
    (home.home() / "steps").mkdir()
    (home.home() / "work" / "train-ab").rename(home.home() / "steps" / "train-ab")
    assert locate(model.path) == ready_folder(model) == home.home() / "steps" / made.path


def test_a_checkpoint_never_leads_out_of_the_home(store: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    for path in (str(tmp_path / "secret"), os.path.relpath(tmp_path / "secret", home.home() / "steps")):
        with pytest.raises(NotFoundError):
            checkpoint_folder(StoredCheckpoint("x", "job", 1, 0, path, datetime.now(UTC), None))


def test_a_model_of_the_catalogue_is_built_once_with_seed_0(tiny_folder: Path, tiny: dict[str, Any]) -> None:
    model = ModelConfig.model_validate({"model_id": "made", "init": {"architecture": tiny}})
    folder = ready_folder(model)
    built, reference = load_model(folder).state_dict(), load_model(tiny_folder).state_dict()
    assert all(built[name].equal(reference[name]) for name in reference)
    changed = (folder / "config.json").stat().st_mtime_ns
    assert ready_folder(model) == folder
    assert (folder / "config.json").stat().st_mtime_ns == changed
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_looking_up_is_light() -> None:
    program = (
        "import sys; from llsflow.models import catalogue, remote; catalogue.list_models(); import llsflow.evals;"
        "print([m for m in ('torch', 'transformers', 'mlflow', 'prefect', 'lightning', 'fastapi', 'sqlalchemy')"
        " if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"

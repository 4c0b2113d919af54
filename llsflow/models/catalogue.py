"""What a model id stands for: a complete file of conf/model, or a checkpoint of a training job."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llsflow import home
from llsflow.config.files import read_document
from llsflow.config.folders import Folders, Version
from llsflow.config.report import MISSING, Report
from llsflow.data.stored import shared_store
from llsflow.errors import ModelError, NotFoundError
from llsflow.models.describe import chat_templates, locate
from llsflow.models.load import model_folder, template_text
from llsflow.models.responses import call_format
from llsflow.schema.models import ModelConfig
from llsflow.store import Store, StoredCheckpoint

GROUP = "model"
INIT_SEED = 0
"""Of the weights of models that are built here: an experiment draws them with its own seed, the catalogue with this."""


def list_models(config_dir: Path | None = None) -> list[ModelConfig]:
    """Return the models of conf/model, by name; templates, which leave something open, are not among them."""
    found = {model.model_id: model for _, model in reversed(_conf_models(config_dir))}
    return [found[model_id] for model_id in sorted(found)]


def find_model(model_id: str, store: Store | None = None, config_dir: Path | None = None) -> ModelConfig | None:
    """Return the model of that id: of conf/model (also by the name of its file), or a checkpoint; None: there is none.

    `store`: where checkpoints are looked up; null: this process's.

    Raises:
        NotFoundError: the checkpoint's files are gone.
        UnavailableError: the store does not answer.
    """
    models = _conf_models(config_dir)
    by_id = {model.model_id: model for _, model in reversed(models)}
    if model := by_id.get(model_id) or dict(models).get(model_id):
        return model
    checkpoint = (store or shared_store()).jobs.checkpoint(model_id)
    return None if checkpoint is None else ModelConfig(model_id=model_id, path=str(checkpoint_folder(checkpoint)))


def known_models(store: Store | None = None, config_dir: Path | None = None) -> list[str]:
    """Return every model id: those of conf/model, then the checkpoints, the newest first."""
    checkpoints = (store or shared_store()).jobs.all_checkpoints()
    newest = sorted(checkpoints, key=lambda checkpoint: checkpoint.created_at, reverse=True)
    return [*(model.model_id for model in list_models(config_dir)), *(checkpoint.identifier for checkpoint in newest)]


def checkpoint_folder(checkpoint: StoredCheckpoint) -> Path:
    """Return where a checkpoint lies: its folder moves from work/ to steps/ when its training is done.

    Raises:
        NotFoundError: it is in neither.
    """
    folder = home.of_step(checkpoint.path)
    if folder is None:
        where = str(home.home() / "steps" / checkpoint.path)
        raise NotFoundError(
            f"the files of checkpoint {checkpoint.identifier!r} are gone (they were in {where!r}): run its training "
            "again"
        )
    return folder


def ready_folder(model: ModelConfig) -> Path:
    """Return the model's Hugging Face folder: downloaded, or built once under LLSFLOW_HOME, where it is not there yet.

    Raises:
        ModelError: there is no such folder, or its config cannot be built.
        UnavailableError: a hub id that is not downloaded yet, and the hub does not answer.
    """
    if model.endpoint is not None:
        raise ModelError(f"{model.model_id!r} answers at {model.endpoint.base_url}: its weights are not here")
    if model.init is None:
        assert model.path is not None  # noqa: S101 - the callers have looked for what is built in
        return model_folder(model.path, model.revision, nested=model.model_type == "rerank")
    from llsflow.models import build

    made_by = home.file_digest(Path(build.__file__))
    key = home.digest({"init": model.init.model_dump(mode="json"), "seed": INIT_SEED, "code": made_by})[:16]
    folder = home.home() / "cache" / "models" / key
    with home.locked(f"model-{key}", waiting_for=f"another process that builds {model.model_id}"):
        if not folder.is_dir():
            aside = folder.with_name(f".{key}.{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            with home.storage_errors(home.home()):
                aside.mkdir(parents=True)
                build.build(model.init, INIT_SEED, aside)
                aside.rename(folder)
    return folder


def writes_calls(model: ModelConfig) -> bool:
    """Return whether a model of this machine writes calls of tools by its own chat template, as far as is known."""
    if model.chat_template:
        templates = [template_text(model.chat_template)]
    elif model.path:
        try:
            folder = locate(model.path, model.revision)
        except ModelError:  # there is no such folder: who asks the model is told so
            folder = None
        templates = _templates(folder, _changed(folder)) if folder else []
    else:
        templates = chat_templates(Path(model.init.tokenizer)) if model.init else []
    return any(call_format(text) for text in templates)


def _changed(folder: Path) -> tuple[int, ...]:
    files = (folder / name for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"))
    return tuple(file.stat().st_mtime_ns for file in files if file.is_file())


@lru_cache(maxsize=64)
def _templates(folder: Path, _: tuple[int, ...]) -> list[str]:
    return chat_templates(folder)


def _conf_models(config_dir: Path | None) -> list[tuple[str, ModelConfig]]:
    """Return the complete files of conf/model by the name of the file, in its order."""
    versions = Folders.at(config_dir).versions(GROUP)
    return [(stem, model) for stem, version in versions if (model := _read(version)) is not None]


@lru_cache(maxsize=256)
def _read(version: Version) -> ModelConfig | None:
    """Return the model of a file; None: it is a template, or not a model's."""
    values = read_document(Path(version[0]), Report()).values
    if _open(values):
        return None
    try:
        return ModelConfig.model_validate(values)
    except ValidationError:
        return None


def _open(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_open(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (value == MISSING or "${" in value)

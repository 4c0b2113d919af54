"""Preparing: what the plan could not know of a model that was still on the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llsflow.errors import DataError
from llsflow.schema.training import DatasetFormat
from llsflow.steps.prepare import token_settings


def keyed(max_length: int | None) -> dict[str, Any]:
    return {
        "data_format": DatasetFormat.INSTRUCT,
        "train_on_input": False,
        "max_length": max_length,
        "overlong": "refuse",
    }


@pytest.fixture
def downloaded(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the hub id org/name."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    store = tmp_path / "hub" / "models--org--name"
    shutil.copytree(tiny_folder, store / "snapshots" / "abc123")
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text("abc123")
    return store / "snapshots" / "abc123"


def test_the_context_of_a_model_that_was_downloaded_since(downloaded: Path) -> None:
    assert token_settings(keyed(None), "org/name").max_length == 512
    assert token_settings(keyed(None), "org/name", "abc123").max_length == 512
    assert token_settings(keyed(100), "org/name").max_length == 100


def test_a_model_that_does_not_say_its_context(downloaded: Path) -> None:
    config = json.loads((downloaded / "config.json").read_text())
    del config["max_position_embeddings"]
    (downloaded / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"recipe\.max_length: the model 'org/name' does not say its context: set it"):
        token_settings(keyed(None), "org/name")

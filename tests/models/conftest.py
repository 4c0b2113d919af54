"""Small models, built from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llsflow.schema.models import ModelInit

if TYPE_CHECKING:
    from llsflow.models.local import LocalModel

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
PRESETS = ("bm25", "llama-3.2-1b-instruct", "qwen3-0.6b", "smollm2-135m")
"""Complete files of conf/model, beside the tiny one."""


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The architecture of the tiny model."""
    return dict(TINY)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLSFLOW_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama over bytes; read only."""
    from llsflow.models.build import build

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(ModelInit(architecture=TINY), seed=0, folder=folder)
    return folder


@pytest.fixture(scope="session")
def llama() -> LocalModel:
    """A random two-layer Llama over bytes whose answers vary; read only."""
    from tests.models.small import make

    return make()


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    import shutil

    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))

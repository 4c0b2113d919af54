"""What every test may use: a home of its own, and a seeded two-layer Llama over bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# no library sends word of its use anywhere, and no test waits for a network
os.environ.update({"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"})
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def llsflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh LLSFLOW_HOME for each test."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LLSFLOW_HOME", str(folder))
    return folder


TWO_LAYERS = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a seeded two-layer Llama over bytes."""
    from llsflow.models.build import build
    from llsflow.schema.models import ModelInit

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(ModelInit(architecture=TWO_LAYERS), 0, folder)
    return folder

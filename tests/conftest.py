"""What every test may use: a home of its own, and a seeded two-layer Llama over bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.tiers import Guard, is_of_services, may_start_services

# a busy machine takes its time over an example: what is tested is what comes of it
hypothesis.settings.register_profile("llsflow", deadline=None)
hypothesis.settings.load_profile("llsflow")

pytest.register_assert_rewrite("tests.training.fields")  # the cases assert outside a test file

# no library sends word of its use anywhere, and no test waits for a network
os.environ.update({"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"})
# models this small lose more to threads that wait for each other than they gain
os.environ["OMP_NUM_THREADS"] = "1"
# the programs that the tests start keep their compiled modules, as a user's do
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)


GUARD = Guard()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of services, so that `make test` stays minutes."""
    for item in items:
        if is_of_services(item):
            item.add_marker("services")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Listen for services from a test's first fixture on."""
    if not may_start_services(item):
        GUARD.begin()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail a test of the first tier that started a service."""
    yield
    if started := GUARD.end():
        pytest.fail(f"it started {', '.join(started)}: its file belongs into SERVICES of tests/tiers.py", pytrace=False)


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
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a seeded two-layer Llama over bytes."""
    from llsflow.models.build import build
    from llsflow.schema.models import ModelInit

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(ModelInit(architecture=TWO_LAYERS), 0, folder)
    return folder


def small_quickstart(folder: Path) -> list[str]:
    """Return overrides that make the quickstart small: 40 rows, 6 steps, 5 questions."""
    days = [f"{day} March 19{year},19{year}-03-{day:02d}" for year in range(70, 80) for day in range(11, 15)]
    data = folder / "days.csv"
    data.write_text("prompt,completion\n" + "\n".join(days) + "\n")
    return [
        f"dataset.uri={data}",
        "model.init.architecture.hidden_size=32",
        "model.init.architecture.intermediate_size=48",
        "recipe.training_config.max_steps_per_epoch=6",
        "recipe.training_config.data_config.batch_size=4",
        "recipe.checkpoint_every_n_steps=2",
        "recipe.log_every_n_steps=1",
        "benchmark.benchmark_config.num_examples=5",
        "trainer=cpu",
    ]


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """The quickstart, made small."""
    return small_quickstart(tmp_path)

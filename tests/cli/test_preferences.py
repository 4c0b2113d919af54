"""Preference optimisation as it is shipped: by the command line, and through the official client."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.serving import Serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("serving"))
    server.start()
    yield server
    server.stop()
    assert server.processes() == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_official_client_makes_a_model_prefer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    found = importlib.import_module("preferences").main([serving.url])
    assert found["status"] == "completed"
    assert found["reward_accuracy"] >= 0.9
    assert 0.2 < found["before"] < 0.8
    assert found["after"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_line_makes_a_model_prefer(serving: Serving) -> None:
    told = serving.type("run", "date_styles")
    model = re.search(r"^Model\s+(\S+)$", told, re.MULTILINE)
    assert model is not None
    folder = serving.home.parent / model[1]
    serving.type("run", "date_preferences", f"model.path={folder}")
    trained, compared = (newest(serving, kind) for kind in ("train", "compare"))
    accuracy = trained["validation"]["reward_accuracy"]
    assert accuracy["first"] == pytest.approx(0.5, abs=0.1)
    assert accuracy["last"] >= 0.9
    (row,) = compared["table"]
    assert 0.2 < row["base"] < 0.8
    assert row["tuned"] >= 0.95


def newest(serving: Serving, kind: str) -> Any:
    """Return the summary of the newest step of this kind."""
    found = max((serving.home / "steps").glob(f"{kind}-*/result.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(found.read_text())["summary"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", ["sft_full", "sft_packed", "sft_lora", "sft_dora"])
def test_the_quickstarts_data_is_learned_by_every_recipe(serving: Serving, recipe: str) -> None:
    told = serving.type("run", "date_styles")
    model = re.search(r"^Model\s+(\S+)$", told, re.MULTILINE)
    assert model is not None
    more = {
        "sft_full": [],
        "sft_packed": ["recipe.training_config.data_config.batch_size=1"],
    }.get(recipe, ["model=folder", f"model.path={serving.home.parent / model[1]}"])
    told = serving.type("run", "quickstart", f"recipe={recipe}", *more)
    row = next(line for line in told.splitlines() if "basic::equality" in line)
    assert float(re.findall(r"\d\.\d{3}", row)[1]) >= 0.95


def test_the_shipped_preferences_are_the_generators(tmp_path: Path) -> None:
    shipped = ROOT / "conf" / "dataset" / "date_styles"
    subprocess.run([sys.executable, ROOT / "tests" / "data" / "make_date_styles.py", tmp_path], check=True)
    for name in ("train.csv", "preferences.csv"):
        assert (shipped / name).read_bytes() == (tmp_path / name).read_bytes(), name
    with (shipped / "preferences.csv").open(newline="", encoding="utf-8") as file:
        pairs = list(csv.DictReader(file))
    with (shipped / "train.csv").open(newline="", encoding="utf-8") as file:
        styled = list(csv.DictReader(file))
    assert not {row["prompt"] for row in pairs} & {row["prompt"] for row in styled}
    iso = sum(row["completion"].count("-") == 2 for row in styled)
    assert 0.48 < iso / len(styled) < 0.52

"""The other kinds of training through their steps: preferences with their reference, adapters merged or alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llsflow.config import load_experiment
from llsflow.errors import DataError
from llsflow.models.describe import describe_folder, is_adapter
from llsflow.plan import compile_plan
from llsflow.schema.plan import StepState
from tests.steps.test_pipeline import Log, run

LORA = (
    "{type: LoRA, lora_attn_modules: [q_proj, v_proj], apply_lora_to_mlp: true, apply_lora_to_output: true, "
    "rank: 4, alpha: 8}"
)


@pytest.fixture
def preferences(tmp_path: Path, tiny_folder: Path) -> list[str]:
    """A small preference optimisation of the tiny model."""
    rows = [f"{day} March 19{year},19{year}-03-{day},{day}.03.19{year}" for year in range(70, 80) for day in (11, 12)]
    data = tmp_path / "preferences.csv"
    data.write_text("prompt,chosen,rejected\n" + "\n".join(rows) + "\n")
    return [
        f"dataset.uri={data}",
        "dataset.hold_out=0.2",
        f"model.path={tiny_folder}",
        "recipe.training_config.data_config.batch_size=4",
        "recipe.log_every_n_steps=1",
        "benchmark=null",
        "trainer=cpu",
        "tracking.register_model=false",
    ]


def test_a_preference_optimisation_asks_its_reference_once(preferences: list[str]) -> None:
    plan, done = run(load_experiment("date_preferences", preferences), Log())
    assert [step.name for step in plan.steps] == ["prepare", "reference", "train", "export", "record"]
    assert done["prepare"].summary["train"]["rows"] == 16
    assert done["reference"].summary == {"pairs": 20}
    summary = done["train"].summary
    assert summary["steps"] == 4
    assert summary["validation"]["reward_accuracy"].keys() == {"first", "last"}
    samples = [json.loads(line) for line in (Path(done["train"].folder) / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {0, 4}
    assert samples[0].keys() == {"step", "row", "prompt", "expected", "generated"}
    report = (Path(done["record"].folder) / "report.html").read_text("utf-8")
    assert "held-out reward accuracy" in report
    changed = [*preferences, "recipe.training_config.optimizer_config.lr=1e-3"]
    states = {
        step.name: step.state for step in compile_plan(load_experiment("date_preferences", changed).experiment).steps
    }
    assert (states["reference"], states["train"]) == (StepState.SKIP, StepState.RUN)


def test_a_cut_epoch_asks_only_for_the_pairs_it_trains_on(preferences: list[str]) -> None:
    cut = [
        *preferences,
        "recipe.training_config.max_steps_per_epoch=2",
        "recipe.training_config.max_validation_steps=1",
    ]
    _, done = run(load_experiment("date_preferences", cut), Log())
    assert done["reference"].summary == {"pairs": 8 + 4}


def test_preferences_and_conversations_are_not_taken_for_each_other(preferences: list[str], small: list[str]) -> None:
    with pytest.raises(DataError, match=r"dataset_id: 20 of the 20 rows of 'date_preferences' are prompt.chosen"):
        compile_plan(load_experiment("date_preferences", [*preferences, "recipe=sft_full"]).experiment)
    with pytest.raises(DataError, match=r"dataset_id: 40 of the 40 rows of 'iso_dates' are no preferences"):
        compile_plan(load_experiment("quickstart", [*small, "recipe=dpo_full"]).experiment)


@pytest.mark.parametrize("export", ["merged", "adapter"])
def test_adapters_are_exported_merged_or_alone(small: list[str], export: str) -> None:
    loaded = load_experiment("quickstart", [*small, f"recipe.algorithm_config={LORA}", f"+recipe.export={export}"])
    _, done = run(loaded, Log())
    trained, exported = done["train"], Path(done["export"].folder) / "model"
    assert is_adapter(Path(trained.folder) / trained.summary["checkpoint"])
    assert 0 < trained.summary["learning"] < trained.summary["parameters"]
    assert is_adapter(exported) == (export == "adapter")
    whole = describe_folder(Path(done["model"].folder) / "model").parameters
    if export == "merged":
        assert describe_folder(exported).parameters == whole
    assert done["evaluate-tuned"].summary["rows"] == 5


def test_both_exports_answer_alike(small: list[str]) -> None:
    def answers(export: str) -> list[Any]:
        overrides = [*small, f"recipe.algorithm_config={LORA}", f"+recipe.export={export}"]
        _, done = run(load_experiment("quickstart", overrides), Log())
        lines = (Path(done["evaluate-tuned"].folder) / "rows.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["generated"] for line in lines]

    assert answers("merged") == answers("adapter")


def test_the_best_checkpoint_is_exported_on_request_without_training_again(small: list[str]) -> None:
    """A learning rate that ruins the model: the first validation is the best."""
    ruined = [
        *small,
        "dataset.hold_out=0.1",
        "recipe.training_config.data_config.validation_dataset_id=iso_dates:held_out",
        "+recipe.validate_every_n_steps=1",
        "recipe.lr_schedule=constant",
        "recipe.training_config.optimizer_config.lr=0.5",
    ]
    last = run(load_experiment("quickstart", ruined), Log())[1]
    trained = last["train"].summary
    assert last["export"].summary["checkpoint"]["step"] == trained["steps"] > trained["best"]["step"]
    log = Log()
    best = run(load_experiment("quickstart", [*ruined, "+recipe.export_checkpoint=best"]), log)[1]
    assert ("skipped", "train") in log.events
    assert best["export"].summary["checkpoint"] == {
        "which": "best",
        "step": trained["best"]["step"],
        "steps": trained["steps"],
        "validation_loss": trained["best"]["validation_loss"],
    }
    weights = load_file(Path(best["train"].folder) / trained["best"]["checkpoint"] / "model.safetensors")
    exported = load_file(Path(best["export"].folder) / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], value.to(exported[name].dtype)) for name, value in weights.items())
    report = (Path(best["record"].folder) / "report.html").read_text("utf-8")
    assert f"the best by validation: step {trained['best']['step']} of {trained['steps']}" in report


def test_packed_rows_train_through_the_steps(small: list[str]) -> None:
    packed = ["recipe=sft_packed", "recipe.packed_length=128"]
    _, done = run(load_experiment("quickstart", [*packed, *small]), Log())
    assert done["train"].summary["steps"] <= 6
    assert done["compare"].summary["table"]

"""DataConfig: which rows, in which order, and what of them is learned."""

from __future__ import annotations

import numpy as np

from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import step_plan
from tests.training.fields.bench import Bench, case, refused, training_override
from tests.training.test_fit import recipe, rows, run


@case("DataConfig.dataset_id")
def dataset_id(bench: Bench) -> None:
    refused("no dataset 'none'", training_override("data_config.dataset_id", "none"))
    refused("prompt.chosen.rejected, for preference optimisation", "dataset=date_preferences", "benchmark=null")
    refused("20000 of the 20000 rows of 'iso_dates' are no preferences", "recipe=dpo_full")


@case("DataConfig.batch_size")
def batch_size(bench: Bench) -> None:
    assert bench.run(data={"batch_size": 12}).steps == 4
    refused("batch_size", training_override("data_config.batch_size", 0))


@case("DataConfig.shuffle")
def shuffle(bench: Bench) -> None:
    kept, mixed = (step_plan(rows().lengths, recipe(data={"shuffle": on}), 5) for on in (False, True))
    assert np.concatenate(kept.steps[0]).tolist() == [0, 1, 2, 3]
    assert np.concatenate(mixed.steps[0]).tolist() != np.concatenate(mixed.steps[6]).tolist()
    refused(
        "group_by_length=true: true needs shuffle: true",
        training_override("data_config.shuffle", "false"),
        "recipe.group_by_length=true",
    )


@case("DataConfig.data_format")
def data_format(bench: Bench) -> None:
    assert bench.tokens("instruct") == ["LAST"]
    assert bench.tokens("dialog") == ["FIRST", "LAST"]


@case("DataConfig.validation_dataset_id")
def validation_dataset_id(bench: Bench) -> None:
    used, held_out = recipe(training={"max_steps_per_epoch": 1}), ExampleTable(rows(9, 1))
    assert "val/loss" in run(bench.folder / "with", bench.model, used, validation=held_out).curves
    assert "val/loss" not in run(bench.folder / "without", bench.model, used).curves
    refused("no dataset 'none'", training_override("data_config.validation_dataset_id", "none"))
    refused(
        "'iso_dates' holds no rows out", training_override("data_config.validation_dataset_id", "iso_dates:held_out")
    )


@case("DataConfig.packed")
def packed(bench: Bench) -> None:
    full = bench.run(data={"packed": True, "batch_size": 1}, packed_length=64)
    assert full.steps < 2 * 24 / 2
    assert full.tokens == bench.run().tokens
    refused("packed", training_override("data_config.packed", "true"), "recipe.group_by_length=true")


@case("DataConfig.train_on_input")
def train_on_input(bench: Bench) -> None:
    assert bench.tokens("instruct", train_on_input=True) == ["a", "FIRST", "b", "LAST"]
    refused(
        "train_on_input=true: true is for kind: sft",
        "recipe=dpo_full",
        "dataset=date_preferences",
        training_override("data_config.train_on_input", "true"),
    )

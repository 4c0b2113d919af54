"""TrainingConfig: how long, how many at once, how exactly."""

from __future__ import annotations

import pytest
import torch

from llsflow.errors import TrainingError
from llsflow.training.examples import ExampleTable
from tests.training.fields.bench import Bench, case, losses, refused, training_override
from tests.training.test_fit import recipe, rows, run, same, weights


@case("TrainingConfig.n_epochs")
def n_epochs(bench: Bench) -> None:
    assert bench.run(training={"n_epochs": 3}).steps == 18
    refused("n_epochs", training_override("n_epochs", 0))


@case("TrainingConfig.max_steps_per_epoch")
def max_steps_per_epoch(bench: Bench) -> None:
    assert bench.run(training={"max_steps_per_epoch": 2}).steps == 4
    assert bench.run(training={"max_steps_per_epoch": -1}).steps == 12


@case("TrainingConfig.gradient_accumulation_steps")
def gradient_accumulation_steps(bench: Bench) -> None:
    once = bench.run(data={"batch_size": 8, "shuffle": False})
    twice = bench.run(data={"shuffle": False}, training={"gradient_accumulation_steps": 2})
    assert losses(once) == pytest.approx(losses(twice), rel=1e-4)


@case("TrainingConfig.max_validation_steps")
def max_validation_steps(bench: Bench) -> None:
    held_out = ExampleTable(rows(9, 1))

    def validated(most: int | None) -> float:
        used = recipe(training={"max_validation_steps": most, "max_steps_per_epoch": 1})
        result = run(bench.folder / str(most), bench.model, used, validation=held_out)
        return result.curves["val/loss"][0][1]

    every = validated(None)
    assert validated(0) == validated(-1) == every != validated(1)


@case("TrainingConfig.data_config")
def data_config(bench: Bench) -> None:
    assert recipe().training_config.data_config is not None
    refused("data_config=null: needed to train: it is null", training_override("data_config", "null"))


@case("TrainingConfig.optimizer_config")
def optimizer_config(bench: Bench) -> None:
    assert recipe().training_config.optimizer_config is not None
    refused("optimizer_config=null: needed to train: it is null", training_override("optimizer_config", "null"))


@case("TrainingConfig.efficiency_config")
def efficiency_config(bench: Bench) -> None:
    plain = bench.run()
    saved = bench.run(training={"efficiency_config": {"enable_activation_checkpointing": True}})
    assert same(weights(plain), weights(saved))


@case("TrainingConfig.dtype")
def dtype(bench: Bench) -> None:
    half = bench.run(training={"dtype": "bf16"})
    assert losses(half) != losses(bench.run())
    assert losses(bench.run(training={"dtype": None})) == losses(bench.run())
    if not torch.cuda.is_available():
        refused("fp16 needs a GPU", training_override("dtype", "fp16"), "trainer=cpu")
        with pytest.raises(TrainingError, match="fp16 needs a GPU"):
            bench.run(training={"dtype": "fp16"})

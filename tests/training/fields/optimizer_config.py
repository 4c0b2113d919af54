"""OptimizerConfig: how the weights move."""

from __future__ import annotations

import pytest

from tests.training.fields.bench import Bench, case, losses, refused, training_override
from tests.training.test_fit import weights


@case("OptimizerConfig.optimizer_type")
def optimizer_type(bench: Bench) -> None:
    found = [losses(bench.run(optimizer={"optimizer_type": kind})) for kind in ("adam", "adamw", "sgd")]
    assert found[0] != found[1] != found[2]
    refused("did you mean 'adam'", training_override("optimizer_config.optimizer_type", "adamm"))


@case("OptimizerConfig.lr")
def lr(bench: Bench) -> None:
    result = bench.run(optimizer={"lr": 0.004, "num_warmup_steps": 0}, lr_schedule="constant")
    assert {value for _, value in result.curves["train/lr"]} == {0.004}
    refused("lr", training_override("optimizer_config.lr", 0))


@case("OptimizerConfig.weight_decay")
def weight_decay(bench: Bench) -> None:
    def size(decay: float) -> float:
        trained = weights(bench.run(optimizer={"weight_decay": decay}))
        return sum(float(weight.norm()) for weight in trained.values() if weight.ndim > 1)

    assert size(5.0) < 0.9 * size(0.0)


@case("OptimizerConfig.num_warmup_steps")
def num_warmup_steps(bench: Bench) -> None:
    result = bench.run(optimizer={"lr": 0.01, "num_warmup_steps": 4}, lr_schedule="constant")
    assert [value for _, value in result.curves["train/lr"]][:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])

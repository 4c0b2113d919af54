"""Tab completion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llsflow.config import complete

Write = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["qu"], ["quickstart"]),
        (["sft", "rec"], ["recipe=", "recipe."]),
        (["sft", "+rec"], ["+recipe=", "+recipe."]),
        (["sft", "recipe=sft_f"], ["recipe=sft_full"]),
        (["sft", "trainer=c"], ["trainer=cpu"]),
        (["sft", "recipe.training_config.opt"], ["recipe.training_config.optimizer_config."]),
        (["sft", "recipe.training_config.optimizer_config.l"], ["recipe.training_config.optimizer_config.lr="]),
        (["sft", "recipe.overlong=t"], ["recipe.overlong=truncate"]),
        (
            ["sft", "recipe.training_config.optimizer_config.optimizer_type=a"],
            [f"recipe.training_config.optimizer_config.optimizer_type={name}" for name in ("adam", "adamw")],
        ),
        (["sft", "recipe.group_by_length="], ["recipe.group_by_length=true", "recipe.group_by_length=false"]),
        (
            ["sft", "benchmark.benchmark_config.eval_candidate.sampling_params.strategy.type="],
            [
                f"benchmark.benchmark_config.eval_candidate.sampling_params.strategy.type={name}"
                for name in ("greedy", "top_p", "top_k")
            ],
        ),
        (["sft", "nothing.like.this"], []),
        (["sft", "nothing="], []),
        (["sft", "seed="], []),
    ],
)
def test_completion(project: Path, words: list[str], expected: list[str]) -> None:
    found = complete(words)
    assert found[: len(expected)] == expected
    assert set(found) - set(expected) <= {f"{words[-1]}null"}


def test_the_first_word_may_be_any_experiment_or_key(write: Write) -> None:
    write("conf/experiment/mine.yaml", "seed: 1\n")
    found = complete([""])
    assert {"mine", "quickstart", "seed=", "model=", "model."} <= set(found)
    assert complete([]) == found
    assert "quickstart" not in complete(["mine", ""])

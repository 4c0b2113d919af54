"""What every case may use: a place to train, a way to be refused, and the list of cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llsflow.config import load_experiment
from llsflow.data.tokens import TokenSettings, tokenize
from llsflow.errors import ConfigError, DataError
from llsflow.models.load import load_tokenizer
from llsflow.plan import compile_plan
from llsflow.schema.training import DatasetFormat
from llsflow.training.inputs import FitResult
from llsflow.training.weights import load_weights
from tests.training.test_fit import inputs_of, recipe, run

LORA = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj"],
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
    "rank": 4,
    "alpha": 8,
}


@dataclass(frozen=True)
class Bench:
    """Where a case trains."""

    model: Path
    folder: Path

    def run(self, **changes: Any) -> FitResult:
        """Train two epochs on 24 rows, six optimizer steps each."""
        used = recipe(**changes)
        self.folder.mkdir(exist_ok=True)
        return run(self.folder / str(len(list(self.folder.iterdir()))), self.model, used)

    def lora(self, **changes: Any) -> Any:
        """Return the model with adapters, ready to be trained."""
        used = recipe(algorithm_config={**LORA, **changes})
        return load_weights(inputs_of(self.model, used), None)

    def adapted(self, **changes: Any) -> set[str]:
        """Return the layers that have an adapter."""
        names = (name for name, weight in self.lora(**changes).named_parameters() if weight.requires_grad)
        return {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}

    def tokens(self, data_format: str = "instruct", *, train_on_input: bool = False) -> list[str]:
        """Return the texts that are learned of a conversation with two answers."""
        turns = [("user", "a."), ("assistant", "FIRST."), ("user", "b."), ("assistant", "LAST.")]
        row = {"messages": [{"role": role, "content": content} for role, content in turns]}
        tokenizer = load_tokenizer(self.model)
        settings = TokenSettings(DatasetFormat(data_format), train_on_input, 512, "refuse")
        table, _ = tokenize([(1, row)], "rows", tokenizer, settings)
        learned = table.input_ids[table.loss_mask]
        return re.findall("[A-Za-z]+", str(tokenizer.decode(learned.tolist(), skip_special_tokens=True)))


Case = Callable[[Bench], None]
CASES: dict[str, Case] = {}
"""Record.field -> its case."""


def case(*fields: str) -> Callable[[Case], Case]:
    """Enter a case for one or more fields."""

    def enter(function: Case) -> Case:
        CASES.update(dict.fromkeys(fields, function))
        return function

    return enter


def losses(result: FitResult) -> list[float]:
    return [value for _, value in result.curves["train/loss"]]


def refused(match: str, *overrides: str) -> None:
    """Assert that the quickstart with these overrides is refused before anything starts."""
    with pytest.raises((ConfigError, DataError), match=match):
        compile_plan(load_experiment("quickstart", [*overrides]).experiment)


def training_override(field: str, value: Any) -> str:
    return f"recipe.training_config.{field}={value}"

"""Preference optimisation: a reference that is asked once, pairs that come to be told apart, and an exact resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llsflow.data.tokens import TokenTable
from llsflow.errors import Stopped
from llsflow.models.attention import use_segments
from llsflow.models.load import load_model
from llsflow.schema.training import DPOAlignmentConfig
from llsflow.training.examples import ExampleTable
from llsflow.training.inputs import FitHooks, FitResult
from llsflow.training.objectives import pair_log_probabilities, preference
from llsflow.training.reference import load_reference, reference_log_probabilities
from tests.training.test_fit import inputs_of, recipe, run, same, stop_after, weights


def pairs(count: int = 12, seed: int = 0) -> TokenTable:
    """Prompts of random bytes; chosen answers end in low ids, rejected ones in high ids."""
    generator = np.random.default_rng(seed)
    ids, mask, lengths = [], [], []
    for _ in range(count):
        prompt = generator.integers(5, 200, size=generator.integers(3, 9))
        for low, high in ((10, 60), (120, 200)):
            answer = generator.integers(low, high, size=generator.integers(2, 8))
            ids.append(np.concatenate([prompt, answer]))
            mask.append(np.arange(len(ids[-1])) >= len(prompt))
            lengths.append(len(ids[-1]))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    numbers = np.repeat(np.arange(count) + 1, 2)
    return TokenTable(np.concatenate(ids).astype(np.int32), np.concatenate(mask), offsets, numbers)


def dpo(**changes: Any) -> Any:
    alignment = {"beta": changes.pop("beta", 0.1), "loss_type": changes.pop("loss_type", "sigmoid")}
    return recipe(kind="dpo", alignment_config=alignment, **changes)


def asked(table: TokenTable, tiny: Path, used: Any) -> ExampleTable:
    """Return the pairs with their log-probabilities under the model."""
    examples = ExampleTable(table, paired=True)
    inputs = inputs_of(tiny, used, train=examples)
    model = load_reference(inputs)
    found = reference_log_probabilities(model, inputs, examples, np.arange(len(examples)), lambda done: None)
    return dataclasses.replace(examples, reference=found)


def optimise(folder: Path, tiny: Path, hooks: FitHooks | None = None, **changes: Any) -> FitResult:
    validated, count = changes.pop("validated", False), changes.pop("count", 12)
    used = dpo(**changes)
    more = {"validation": asked(pairs(8, 1), tiny, used)} if validated else {}
    return run(folder, tiny, used, hooks, train=asked(pairs(count), tiny, used), **more)


def test_the_reference_is_the_models_own_log_probability(tiny_folder: Path) -> None:
    table = pairs(5)
    examples = asked(table, tiny_folder, dpo())
    model = load_model(tiny_folder)
    assert examples.reference is not None
    for row in range(10):
        span = slice(int(table.offsets[row]), int(table.offsets[row + 1]))
        ids = torch.from_numpy(table.input_ids[span].astype(np.int64))
        with torch.no_grad():
            nats = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), -1)
        answer = np.flatnonzero(table.loss_mask[span])
        expected = sum(float(nats[place - 1, ids[place]]) for place in answer)
        assert float(examples.reference[row // 2, row % 2]) == pytest.approx(expected, rel=1e-4)


def test_padded_and_flat_rows_have_the_same_log_probabilities(tiny_folder: Path) -> None:
    padded, flat = load_model(tiny_folder), load_model(tiny_folder)
    assert use_segments(flat)
    batch = ExampleTable(pairs(7), paired=True).collate(np.arange(7))
    with torch.no_grad():
        found = [pair_log_probabilities(model, batch) for model in (padded, flat)]
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    assert found[0][1].tolist() == found[1][1].tolist()


def test_a_pairs_prompt_stands_in_the_batch_once() -> None:
    table = pairs(6)
    batch = ExampleTable(table, paired=True).collate(np.arange(6))
    prompts = int((~table.loss_mask).sum()) // 2
    assert batch.tokens == len(table.input_ids)
    assert len(batch.input_ids) == len(table.input_ids) - (prompts - 6)


def test_only_the_examples_that_are_trained_on_are_asked(tiny_folder: Path) -> None:
    examples, used = ExampleTable(pairs(6), paired=True), dpo()
    inputs = inputs_of(tiny_folder, used, train=examples)
    done: list[int] = []
    found = reference_log_probabilities(load_reference(inputs), inputs, examples, np.array([1, 4]), done.append)
    assert np.flatnonzero(~np.isnan(found).any(axis=1)).tolist() == [1, 4]
    assert done[-1] == 2


def test_before_the_first_step_every_pair_is_a_tie(tiny_folder: Path) -> None:
    examples = asked(pairs(), tiny_folder, dpo())
    model = load_model(tiny_folder)
    use_segments(model)
    batch = examples.collate(np.arange(len(examples)))
    same_reference = dataclasses.replace(batch, reference=pair_log_probabilities(model, batch)[0].detach())
    measured = preference(model, same_reference, DPOAlignmentConfig(beta=0.1))
    assert float(measured.loss.detach()) / len(examples) == pytest.approx(float(np.log(2)), rel=1e-6)
    assert float(measured.metrics["reward_accuracy"]) / len(examples) == 0.5


def test_pairs_come_to_be_told_apart_also_those_held_out(tiny_folder: Path, tmp_path: Path) -> None:
    result = optimise(
        tmp_path, tiny_folder, validated=True, count=64, training={"n_epochs": 6, "max_validation_steps": 0}
    )
    accuracy, margin = (result.curves[f"val/{name}"] for name in ("reward_accuracy", "reward_margin"))
    assert accuracy[0][0] == 0
    assert abs(margin[0][1]) < 1e-5
    assert accuracy[-1][1] == 1.0
    assert margin[-1][1] > 0.1
    assert result.curves["val/loss"][-1][1] < 0.6 < result.curves["val/loss"][0][1]
    assert "val/perplexity" not in result.curves
    drawn = ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy", "logp_chosen", "logp_rejected")
    assert all(f"train/{name}" in result.curves for name in drawn)


@pytest.mark.parametrize("adapters", [False, True])
def test_a_resumed_run_ends_with_the_unbroken_runs_weights(tiny_folder: Path, tmp_path: Path, adapters: bool) -> None:
    lora = {
        "type": "LoRA",
        "lora_attn_modules": ["q_proj", "v_proj"],
        "apply_lora_to_mlp": True,
        "apply_lora_to_output": False,
        "rank": 4,
        "alpha": 8,
    }
    used: dict[str, Any] = {
        "training": {"gradient_accumulation_steps": 2},
        "algorithm_config": lora if adapters else None,
    }
    unbroken = optimise(tmp_path / "a", tiny_folder, **_copy(used))
    with pytest.raises(Stopped):
        optimise(tmp_path / "b", tiny_folder, FitHooks(stopping=stop_after(2)), **_copy(used))
    resumed = optimise(tmp_path / "b", tiny_folder, **_copy(used))
    assert resumed.resumed_from == 2
    assert same(weights(unbroken), weights(resumed))


def _copy(value: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(inner) if isinstance(inner, dict) else inner for name, inner in value.items()}

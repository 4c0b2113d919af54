"""A documented field acts, or is refused with the reason: here are those that are refused for now."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llsflow.schema.benchmarks import BenchmarkConfig
from llsflow.schema.datasets import DatasetConfig
from llsflow.schema.models import ModelConfig
from llsflow.schema.sampling import SamplingParams
from llsflow.schema.training import DataConfig, LoraFinetuningConfig, Recipe, TrainerConfig, TrainingConfig

DATA = {"dataset_id": "d", "batch_size": 1, "shuffle": True, "data_format": "instruct"}
LORA = {
    "type": "LoRA",
    "lora_attn_modules": ["q_proj"],
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
    "rank": 8,
    "alpha": 16,
}


@pytest.mark.parametrize(
    ("record", "body", "reason"),
    [
        (LoraFinetuningConfig, {**LORA, "lora_attn_modules": []}, "nothing would learn: name lora_attn_modules"),
        (
            Recipe,
            {
                "kind": "sft",
                "training_config": {"n_epochs": 1},
                "algorithm_config": {"type": "QAT", "quantizer_name": "x", "group_size": 32},
            },
            "QAT is not available: its result runs only in torchao",
        ),
        (TrainerConfig, {"devices": 0}, "greater than or equal to 1"),
        (BenchmarkConfig, {"eval_candidate": {"type": "agent", "config": {}}}, "agent.config.model\n  Field required"),
        (ModelConfig, {"model_id": "m"}, "one of path, init, endpoint and builtin must be set"),
        (
            ModelConfig,
            {"model_id": "m", "init": {"architecture": {"model_type": "llama"}}, "revision": "x"},
            "revision is for a hub id",
        ),
        (DatasetConfig, {"dataset_id": "d"}, "one of uri and rows must be set"),
        (TrainingConfig, {"n_epochs": 1, "dtype": "int8"}, "'bf16', 'fp16' or 'fp32'"),
        (TrainingConfig, {"n_epochs": True}, "valid integer"),
        (SamplingParams, {"stop": ["a", "b", "c", "d", "e"]}, "at most 4 items"),
        (SamplingParams, {"repetition_penalty": -1.0}, "greater than 0"),
        (SamplingParams, {"strategy": {"type": "top_p", "temperature": 0.0}}, "greater than 0"),
    ],
)
def test_refused_with_the_reason(record: Any, body: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        record.model_validate(body)


@pytest.mark.parametrize("extra", ["forbid", "ignore"])
def test_unknown_keys_are_mistakes_in_yaml_and_ignored_over_http(extra: Any) -> None:
    body = {**DATA, "shufle": True}
    if extra == "ignore":
        assert DataConfig.model_validate(body, extra=extra).shuffle
    else:
        with pytest.raises(ValidationError, match="shufle"):
            DataConfig.model_validate(body, extra=extra)

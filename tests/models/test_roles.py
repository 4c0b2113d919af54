"""What the linear layers of many architectures do, told from their weights' names alone."""

from __future__ import annotations

from typing import Any

import pytest

from llsflow.errors import ModelError
from llsflow.models.roles import adapter_parameters, llama_roles, roles_of
from llsflow.schema.training import LoraFinetuningConfig
from tests.models.test_segments import KEEPS_ITS_OWN, RUNS, model

ATTENTION = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "phi3": ["o_proj", "qkv_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "gpt_neox": ["query_key_value", "dense"],
    "bloom": ["query_key_value", "dense"],
}
MLP = {
    "llama": ["gate_proj", "up_proj", "down_proj"],
    "phi3": ["gate_up_proj", "down_proj"],
    "gpt2": ["c_fc", "c_proj"],
    "gpt_neox": ["dense_h_to_4h", "dense_4h_to_h"],
    "bloom": ["dense_h_to_4h", "dense_4h_to_h"],
}


def lora(**changes: Any) -> LoraFinetuningConfig:
    base = {
        "lora_attn_modules": ["output_proj"],
        "apply_lora_to_mlp": False,
        "apply_lora_to_output": False,
        "rank": 4,
        "alpha": 8,
    }
    return LoraFinetuningConfig.model_validate({**base, **changes})


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    made = model(kind, {**RUNS, **KEEPS_ITS_OWN}[kind])
    return {name: tuple(weight.shape) for name, weight in made.named_parameters()}


@pytest.mark.parametrize("kind", ATTENTION)
def test_attention_and_feed_forward_are_told_apart(kind: str) -> None:
    roles = roles_of(shapes(kind))
    assert sorted(path.split(".")[-1] for path in roles.attention) == sorted(ATTENTION[kind])
    assert sorted(path.split(".")[-1] for path in roles.mlp) == sorted(MLP[kind])
    assert roles.attention_path("output_proj") in roles.attention


def test_an_architecture_that_is_not_built_yet_has_the_same_roles() -> None:
    assert llama_roles("llama") == roles_of(shapes("llama"))
    assert llama_roles("gpt2") is None


def test_targets_never_match_another_layer() -> None:
    """GPT-2 calls the last layer of attention and of the feed-forward the same."""
    roles = roles_of(shapes("gpt2"))
    assert roles.targets(lora()) == ["attn.c_proj"]
    assert roles.targets(lora(apply_lora_to_mlp=True)) == ["c_proj", "c_fc"]
    assert roles.targets(lora(lora_attn_modules=["c_attn"])) == ["c_attn"]


def test_a_module_that_the_model_has_not_is_refused_with_those_it_has() -> None:
    roles = roles_of(shapes("gpt2"))
    with pytest.raises(ModelError, match="no 'q_proj', allowed: c_attn, c_proj, output_proj"):
        roles.targets(lora(lora_attn_modules=["q_proj"]))
    (near,) = roles_of(shapes("llama")).mistakes(lora(lora_attn_modules=["q_prj"]))
    assert near.endswith("did you mean 'q_proj'?")


@pytest.mark.parametrize("output", [False, True])
def test_the_adapters_size_is_known_beforehand(output: bool) -> None:
    from llsflow.models.adapters import attach, parameters_of

    config = lora(lora_attn_modules=["q_proj", "k_proj"], apply_lora_to_mlp=True, apply_lora_to_output=output)
    _, learning = parameters_of(attach(model("llama", RUNS["llama"]), config))
    assert adapter_parameters(shapes("llama"), config) == learning

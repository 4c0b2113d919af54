"""LoraFinetuningConfig and QATFinetuningConfig: adapters beside the weights."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from pydantic import ValidationError

from llsflow.errors import LlsflowError
from llsflow.models.roles import llama_roles
from llsflow.schema.training import LoraFinetuningConfig, QATFinetuningConfig
from tests.training.fields.bench import LORA, Bench, case, losses, refused
from tests.training.test_fit import recipe


@case("LoraFinetuningConfig.type")
def lora_type(bench: Bench) -> None:
    assert LoraFinetuningConfig.model_validate(LORA).type == "LoRA"
    refused("allowed", "+recipe.algorithm_config={type: lora}")


@case("LoraFinetuningConfig.lora_attn_modules")
def lora_attn_modules(bench: Bench) -> None:
    assert bench.adapted(lora_attn_modules=["k_proj", "output_proj"]) == {"k_proj", "o_proj"}
    with pytest.raises(LlsflowError, match="no 'c_attn', allowed: q_proj, k_proj, v_proj, o_proj, output_proj"):
        bench.adapted(lora_attn_modules=["c_attn"])
    refused(
        "this model has no 'q_prj'.*did you mean 'q_proj'",
        "recipe=sft_lora",
        "recipe.algorithm_config.lora_attn_modules=[q_prj]",
    )
    refused(
        "nothing would learn",
        "recipe=sft_lora",
        "recipe.algorithm_config.lora_attn_modules=[]",
        "recipe.algorithm_config.apply_lora_to_mlp=false",
    )


@case("LoraFinetuningConfig.apply_lora_to_mlp")
def apply_lora_to_mlp(bench: Bench) -> None:
    roles = llama_roles("llama")
    assert roles is not None
    assert bench.adapted(apply_lora_to_mlp=True) == {"q_proj", "gate_proj", "up_proj", "down_proj"}


@case("LoraFinetuningConfig.apply_lora_to_output")
def apply_lora_to_output(bench: Bench) -> None:
    assert bench.adapted(apply_lora_to_output=True) == {"q_proj", "lm_head"}


@case("LoraFinetuningConfig.rank")
def rank(bench: Bench) -> None:
    small, large = ({tuple(w.shape) for w in bench.lora(rank=r).parameters() if w.requires_grad} for r in (2, 5))
    assert {2 in shape for shape in small} == {5 in shape for shape in large} == {True}


@case("LoraFinetuningConfig.alpha")
def alpha(bench: Bench) -> None:
    def scale(value: int) -> float:
        module = next(m for m in bench.lora(alpha=value).modules() if hasattr(m, "lora_A"))
        return float(module.scaling["default"])

    assert (scale(8), scale(16)) == (2.0, 4.0)


@case("LoraFinetuningConfig.use_dora")
def use_dora(bench: Bench) -> None:
    def magnitudes(**changes: Any) -> int:
        return sum("magnitude" in name for name, _ in bench.lora(**changes).named_parameters())

    assert magnitudes(use_dora=True) == 2
    assert magnitudes() == 0


@case("LoraFinetuningConfig.quantize_base")
def quantize_base(bench: Bench) -> None:
    model = bench.lora(quantize_base=True)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    assert {str(w.dtype) for n, w in model.named_parameters() if n.endswith("up_proj.weight")} == {"torch.uint8"}
    learned = losses(
        bench.run(
            algorithm_config={**LORA, "apply_lora_to_mlp": True, "quantize_base": True}, training={"n_epochs": 20}
        )
    )
    assert sum(learned[-6:]) < 0.97 * sum(learned[:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        refused("needs bitsandbytes", "recipe=sft_lora", "recipe.algorithm_config.quantize_base=true")


@case(*(f"QATFinetuningConfig.{name}" for name in QATFinetuningConfig.model_fields))
def quantisation_aware(bench: Bench) -> None:
    config = QATFinetuningConfig(quantizer_name="int4_weight_only", group_size=32)
    with pytest.raises(ValidationError, match="QAT is not available: its result runs only in torchao's own format"):
        recipe(algorithm_config=config.model_dump())

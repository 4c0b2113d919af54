"""The parameter formula against transformers itself, and mistakes that need no transformers to see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llsflow.errors import ModelError
from llsflow.models.formula import BYTE_VOCABULARY, check_init, parameter_count, tokenizer_size
from llsflow.schema.models import ModelInit

BASE = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, Any]:
    kv = draw(st.sampled_from([1, 2]))
    heads = kv * draw(st.sampled_from([1, 2]))
    a: dict[str, Any] = {
        "model_type": draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"])),
        "hidden_size": heads * draw(st.sampled_from([4, 8])),
        "intermediate_size": draw(st.integers(3, 20)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": draw(st.integers(5, 40)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    extras: dict[str, Any] = {}
    if a["model_type"] in ("llama", "qwen3"):
        extras["attention_bias"] = draw(st.booleans())
    if a["model_type"] == "llama":
        extras["mlp_bias"] = draw(st.booleans())
    if a["model_type"] in ("llama", "mistral", "qwen3"):
        extras["head_dim"] = draw(st.sampled_from([4, 6]))
    keep = draw(st.sets(st.sampled_from(sorted(extras)))) if extras else set()
    return a | {key: extras[key] for key in keep}


@settings(max_examples=40, derandomize=True)
@given(a=architectures())
def test_formula_counts_what_transformers_builds(a: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**a, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    with torch.device("meta"):
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config)
    assert parameter_count(a, a["vocab_size"]) == sum(p.numel() for p in model.parameters())


def test_closed_form() -> None:
    # v=10 h=8 l=1 i=8 q=k=2 d=4: 80 + (2·8·4·4=256 + 3·64=192 + 16) + 8 + 80 = 632
    assert parameter_count({"model_type": "llama", **BASE}, 10) == 632


@pytest.mark.parametrize("a", [{"model_type": "gpt2", **BASE}, {"model_type": "llama", "hidden_size": 8}])
def test_unknown_architecture_or_size_is_not_guessed(a: dict[str, Any]) -> None:
    assert parameter_count(a, 10) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": "8"}, "hidden_size: found '8', allowed: an integer of at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: found 0"),
        ({"num_attention_heads": True}, "num_attention_heads: found True"),
        ({"hidden_size": 9}, "9 is not a multiple of num_attention_heads (2)"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "4 heads cannot be shared evenly by 3"),
        ({"vocab_size": 200}, f"200 is less than the tokenizer's {BYTE_VOCABULARY} ids"),
    ],
)
def test_check_init_names_key_found_and_allowed(change: dict[str, Any], words: str) -> None:
    (mistake,) = check_init(ModelInit(architecture={"model_type": "llama", **BASE, **change}))
    assert words in mistake
    assert mistake.startswith("model.init.architecture.")


def test_check_init_passes_what_is_right_and_names_a_missing_tokenizer() -> None:
    assert check_init(ModelInit(architecture={"model_type": "llama", **BASE})) == []
    (mistake,) = check_init(ModelInit(architecture={"model_type": "llama", **BASE}, tokenizer="/nowhere"))
    assert "'/nowhere'" in mistake
    with pytest.raises(ModelError, match="nowhere"):
        tokenizer_size("/nowhere")

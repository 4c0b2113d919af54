"""Random models of every way to decode, and questions to them."""

from __future__ import annotations

import random
from typing import Any

import torch

from llsflow.data.conversation import Conversation, user
from llsflow.models.build import byte_tokenizer
from llsflow.models.generation_attention import use_generation_attention
from llsflow.models.local import LocalModel

TOKENIZER = byte_tokenizer()
REFUSES_TOOLS = "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}asked"
"""A chat template."""
SIZES: dict[str, Any] = {
    **{"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 96},
    **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None},
}
GPT2 = {"vocab_size": 261, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "pad_token_id": 0}
# Each decodes in its own way: plain attention, a sliding window, both, learned positions, no positions to set,
# recurrent states beside attention, recurrent states only, with and without a mask.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "mistral": {**SIZES, "sliding_window": 8},
    "gemma3_text": {
        **SIZES,
        **{"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    },
    "gpt2": {**GPT2, "bos_token_id": 1, "eos_token_id": 1},
    "bloom": {"vocab_size": 261, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0, "eos_token_id": 1},
    "mamba": {"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "eos_token_id": 1},
    "rwkv": {"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 1},
}


def make(model_type: str = "llama", seed: int = 0, **changes: Any) -> LocalModel:
    """Return a random model whose answers vary: its matrices are larger than training would begin with."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(model_type, **{**ARCHITECTURES[model_type], **changes})
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    use_generation_attention(model)  # as LocalModel.load does
    return LocalModel(model, TOKENIZER)


def ask(*texts: str) -> list[Conversation]:
    return [Conversation([user(text)]) for text in texts]


def questions(count: int, seed: int = 0) -> list[Conversation]:
    rng = random.Random(seed)  # noqa: S311 - questions, not secrets
    return ask(*("".join(rng.choice("abcd ef") for _ in range(rng.randint(0, 40))) for _ in range(count)))

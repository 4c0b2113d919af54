"""What a model that is not built yet will be: parameter count by formula, token ids, mistakes in its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llsflow import home
from llsflow.errors import ModelError
from llsflow.schema.models import ModelInit

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
"""The byte tokenizer's first ids; the 256 bytes follow."""
BYTE_VOCABULARY = len(SPECIAL_TOKENS) + 256

SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "vocab_size"),
    *("n_embd", "n_layer", "n_head", "n_positions"),
)


@dataclass(frozen=True)
class Family:
    """How a llama-like architecture differs in what it counts; defaults as in its transformers config."""

    kv_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = False
    """Biases on q, k and v whatever the config says."""
    bias_key: bool = False
    """`attention_bias` acts, on q, k, v and o."""
    qk_norm: bool = False
    mlp_bias_key: bool = False
    """`mlp_bias` acts."""


FAMILIES = {
    "llama": Family(bias_key=True, mlp_bias_key=True),
    "mistral": Family(kv_heads=8),
    "qwen2": Family(kv_heads=32, qkv_bias=True),
    "qwen3": Family(kv_heads=32, head_dim=128, bias_key=True, qk_norm=True),
}


def parameter_count(a: Mapping[str, Any], vocab: int) -> int | None:
    """Return the parameter count of a llama-like decoder; None for another architecture or a missing size.

    v·h (embedding) + l·(attention + 3·h·i + 2·h) + h (last norm) + v·h unless tied, with
    attention = 2·h·d·(q + k) for the projections q, k, v, o, plus their biases, plus 2·d where q and k are
    normed. v vocabulary, h hidden size, l layers, i intermediate size, q heads, k key-value heads, d head size.

    Source: the module lists of transformers' modeling_llama, _mistral, _qwen2 and _qwen3.
    """
    family = FAMILIES.get(a["model_type"])
    needed = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    if family is None or not all(isinstance(a.get(key), int) and a[key] > 0 for key in needed):
        return None
    h, layers, i, q = (int(a[key]) for key in needed)
    k = int(a.get("num_key_value_heads") or family.kv_heads or q)
    d = int(a.get("head_dim") or family.head_dim or h // q)
    mlp = 3 * h * i + (2 * i + h if family.mlp_bias_key and a.get("mlp_bias") else 0)
    head = 0 if a.get("tie_word_embeddings") else vocab * h
    layer = 2 * h * d * (q + k) + _attention_extras(family, a, h, d, q, k) + mlp + 2 * h
    return vocab * h + layers * layer + h + head


def _attention_extras(family: Family, a: Mapping[str, Any], h: int, d: int, q: int, k: int) -> int:
    norms = 2 * d if family.qk_norm else 0
    if family.qkv_bias:
        return norms + d * (q + 2 * k)
    if family.bias_key and a.get("attention_bias"):
        return norms + d * (q + 2 * k) + h
    return norms


def tokenizer_size(tokenizer: str) -> int:
    """Return how many token ids a tokenizer has: `bytes`, or a folder with tokenizer.json.

    Raises:
        ModelError: the folder has no readable tokenizer.json.
    """
    if tokenizer == "bytes":
        return BYTE_VOCABULARY
    content = home.read_json(Path(tokenizer) / "tokenizer.json")
    if not isinstance(content, dict):
        raise ModelError(
            f"model.init.tokenizer: {tokenizer!r} is not a folder with a readable tokenizer.json: give one, or 'bytes'"
        )
    vocab = content.get("model", {}).get("vocab", {})
    ids = set(vocab.values()) if isinstance(vocab, dict) else set(range(len(vocab)))
    return len(ids | {token["id"] for token in content.get("added_tokens", [])})


def check_init(init: ModelInit) -> list[str]:
    """Return the mistakes in a new model's config that can be seen without importing transformers."""
    a = init.architecture
    place = "model.init.architecture"
    mistakes = [
        f"{place}.{key}: found {a[key]!r}, allowed: an integer of at least 1"
        for key in SIZES
        if a.get(key) is not None and not _positive(a[key])
    ]
    if mistakes:
        return mistakes
    try:
        ids = tokenizer_size(init.tokenizer)
    except ModelError as error:
        return [str(error)]
    if a.get("vocab_size") is not None and a["vocab_size"] < ids:
        mistakes.append(f"{place}.vocab_size: {a['vocab_size']} is less than the tokenizer's {ids} ids: remove it")
    heads, hidden, groups = (a.get(key) for key in ("num_attention_heads", "hidden_size", "num_key_value_heads"))
    if heads and hidden and not a.get("head_dim") and hidden % heads:
        mistakes.append(f"{place}.hidden_size: {hidden} is not a multiple of num_attention_heads ({heads})")
    if heads and groups and heads % groups:
        mistakes.append(f"{place}.num_key_value_heads: {heads} heads cannot be shared evenly by {groups}")
    return mistakes


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

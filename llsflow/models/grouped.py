"""Attention whose query heads share keys and values, as torch computes it: transformers copies these for each head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "llsflow_grouped"


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention of query [b, h, q, size] over key and value [b, h / groups, t, size], as [b, q, h, size]."""
    groups = getattr(module, "num_key_value_groups", 1)
    # on a GPU torch has no fast kernel for shared heads and a mask
    if groups == 1 or query.device.type != "cpu" or others.get("position_bias") is not None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return found
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    made = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=bool(causal) and attention_mask is None and query.shape[2] > 1,
        scale=scaling,
        enable_gqa=True,
    )
    return made.transpose(1, 2).contiguous(), None


def share_heads(model: PreTrainedModel) -> None:
    """Have a model use this attention where it would use torch's by transformers."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)

"""Attention while generating: heads that share keys and values as torch computes it, and texts that share their start.

b rows, t tokens of a row, p tokens of the start that all rows share, h heads of queries, g of keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llsflow.models import attention as segmented
from llsflow.models.cache import States
from llsflow.models.segments import Segments

NAME = "llsflow_generation"
"""What the attention is called in transformers' registry."""


def attention(  # noqa: PLR0913, PLR0917 - the signature that transformers calls
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    segments: Segments | None = None,
    before: States | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return the attention of query [b, h, q, size] over key and value [b, g, t, size], as [b, q, h, size].

    Args:
        module: the attention layer.
        query: of the tokens that are read.
        key: of the tokens so far.
        value: as key.
        attention_mask: which tokens see which; null: each those before it.
        dropout: share of the weights that is dropped.
        scaling: factor of the scores; null: 1 / √size.
        is_causal: whether a token sees those before it only; null: as the layer says.
        segments: the borders of rows that stand one after another, b = 1.
        before: the start that every row shares.
        others: what transformers' own attention takes.
    """
    start = before[module.layer_idx] if before is not None else None  # type: ignore[index]
    if segments is not None:
        return segmented.attention(
            module, query, key, value, None, scaling, dropout, segments=segments, before=start, **others
        )
    if start is not None:
        return _behind(query, key, value, attention_mask, start, scaling), None
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


def _behind(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, start: tuple[Tensor, Tensor], scaling: float | None
) -> Tensor:
    """Return the attention of one token of each row over a start that stands in memory once, and over its own.

    One softmax goes over both, so nothing but the order of the sums differs from the rows' each having the start
    (cascade attention: arXiv:2402.05099, section 3).
    """
    rows, heads, _, size = query.shape
    shared_keys, shared_values = (states[0] for states in start)  # [g, p, size]
    groups, length = shared_keys.shape[:2]
    asked = (query * (size**-0.5 if scaling is None else scaling)).view(rows, groups, heads // groups, size)
    together = asked.transpose(0, 1).reshape(groups, -1, size)  # [g, b · h / g, size]
    first = (together @ shared_keys.transpose(1, 2)).view(groups, rows, -1, length).transpose(0, 1)
    own = asked @ key.transpose(2, 3)  # [b, g, h / g, t]
    if mask is not None:
        own = own.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else own + mask
    weights = torch.cat([first, own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    of_start = weights[..., :length].transpose(0, 1).reshape(groups, -1, length) @ shared_values
    found = of_start.view(groups, rows, -1, size).transpose(0, 1) + weights[..., length:] @ value
    return found.reshape(rows, 1, heads, size)


def use_generation_attention(model: PreTrainedModel) -> None:
    """Have a model use this attention where it would use torch's by transformers."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)

"""Attention over rows that stand one after another without padding, each as if it were alone.

Every layer but attention works on single tokens, so it need not know where a row ends. Attention does: it is given
the rows' borders, spreads its rows to a padded batch of their own, and brings the result back. So padding costs
attention alone, whatever the rows' lengths, and a row never sees another.

Letters: t tokens of all rows, h heads, d head size, l longest row of a bucket, p tokens of a start before the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llsflow.models.segments import Segments

NAME = "llsflow_segments"
"""What the attention is called in transformers' registry."""

TOLERANCE = 1e-3
"""Largest difference of the logits, as a share of their spread, between a row alone and the same among others."""

logger = logging.getLogger("llsflow")


def attention(  # noqa: PLR0913, PLR0917 - the signature that transformers calls
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - as above
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    before: tuple[Tensor, Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return causal attention within each row, [1, t, h, d].

    Args:
        module: the attention layer.
        query: [1, h, t, d].
        key: [1, g, t, d]; g key-value heads.
        value: as key.
        attention_mask: not used: `segments` says which tokens see which.
        scaling: factor of the scores; null: 1 / √d.
        dropout: share of the weights that is dropped.
        sliding_window: how many tokens back a token sees; null: all.
        segments: the rows' borders.
        before: keys and values of a start that every row sees before its own tokens, [1, g, p, d].
        kwargs: what changes the scores otherwise is refused.

    Raises:
        NotImplementedError: the model's attention does more than this one.
    """
    if segments is None or any(kwargs.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError(f"{type(module).__name__} does more than attention within rows")
    grouped = query.shape[1] != key.shape[1]
    spread = [_spread(x[0].transpose(0, 1), segments) for x in (query, key, value)]
    outputs = []
    for bucket, *rows in zip(segments.buckets, *spread, strict=True):
        q, k, v = (x.unflatten(0, (bucket.rows, bucket.longest)).transpose(1, 2) for x in rows)
        if before is not None:
            k, v = (torch.cat([x.expand(bucket.rows, -1, -1, -1), y], 2) for x, y in zip(before, (k, v), strict=True))
        window = _window(bucket.longest, k.shape[2], sliding_window, query.device)
        output = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=window, is_causal=window is None, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return _join(segments, outputs)[None], None


def _spread(flat: Tensor, segments: Segments) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _Spread.apply(flat, segments)  # type: ignore[no-untyped-call]
    return found


def _join(segments: Segments, rows: Sequence[Tensor]) -> Tensor:
    found: Tensor = _Join.apply(segments, *rows)  # type: ignore[no-untyped-call]
    return found


class _Spread(torch.autograd.Function):
    """The sequence [t, h, d] to the padded rows of each bucket, [rows · longest, h, d].

    The gradient is gathered too, where autograd would add it up token by token: padding has none, as no token of a
    row sees what stands behind it.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, segments: Segments) -> tuple[Tensor, ...]:
        ctx.segments = segments
        return tuple(flat.index_select(0, bucket.spread) for bucket in segments.buckets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        segments: Segments = ctx.segments
        buckets = list(zip(segments.buckets, gradients, strict=True))
        found = _in_order(segments, [gradient.index_select(0, bucket.back) for bucket, gradient in buckets])
        for bucket, gradient in buckets:
            if len(bucket.copied):
                both = found.index_select(0, bucket.copied) + gradient.index_select(0, bucket.copies)
                found.index_copy_(0, bucket.copied, both)
        return found, None


class _Join(torch.autograd.Function):
    """The padded rows of each bucket back to the sequence: what `_Spread` did, undone."""

    @staticmethod
    def forward(ctx: Any, segments: Segments, *rows: Tensor) -> Tensor:
        ctx.segments = segments
        parts = zip(segments.buckets, rows, strict=True)
        return _in_order(segments, [row.index_select(0, bucket.back) for bucket, row in parts])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        segments: Segments = ctx.segments
        by_bucket = gradient.index_select(0, segments.inverse)
        parts = torch.split(by_bucket, [len(bucket.back) for bucket in segments.buckets])
        nothing = gradient.new_zeros(1, *gradient.shape[1:])
        filled = zip(segments.buckets, parts, strict=True)
        return (None, *(torch.cat([part, nothing]).index_select(0, bucket.fill) for bucket, part in filled))


def _in_order(segments: Segments, parts: Sequence[Tensor]) -> Tensor:
    """Return what there is for each bucket's own tokens, in the sequence's order."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).index_select(0, segments.order)


def _window(longest: int, keys: int, size: int | None, device: torch.device) -> Tensor | None:
    """Return which tokens see which, bool [l, keys]; None where every token sees all before it."""
    if keys == longest and (size is None or longest <= size):
        return None
    start = keys - longest
    seen = torch.ones(longest, keys, dtype=torch.bool, device=device).tril(start)
    return seen if size is None else seen.triu(start + 1 - size)


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *args, **kwargs: None)


def use_segments(model: PreTrainedModel) -> bool:
    """Have the model run rows one after another, where that gives what each alone gives; else leave it as it was.

    Found out by trying, on a few tokens: an architecture may count positions by itself, keep a state from token to
    token, or do more in its attention than it tells.
    """
    text = model.config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if layers or getattr(text, "attention_chunk_size", None):  # would show on rows longer than the probe's only
        return False
    before, training = model.config._attn_implementation, model.training
    model.train(False)
    try:
        with torch.no_grad():
            alone = [model(input_ids=row[None], use_cache=False).logits[0] for row in _probe(model)]
            model.set_attn_implementation(NAME)
            together = _joined_logits(model)
    except Exception as error:  # an architecture may refuse in any way
        logger.debug("%s pads its rows: %s", type(model).__name__, error)
        together = None
    finally:
        model.train(training)
    if together is not None and close(torch.cat(alone), together):
        return True
    model.set_attn_implementation(before)
    return False


def _probe(model: PreTrainedModel) -> list[Tensor]:
    ids = torch.arange(9, device=model.device) % int(model.config.get_text_config().vocab_size)
    return [ids[:4], ids[4:]]


def _joined_logits(model: PreTrainedModel) -> Tensor:
    rows = _probe(model)
    segments = Segments.of([len(row) for row in rows]).to(model.device)
    logits: Tensor = model(
        input_ids=torch.cat(rows)[None], position_ids=segments.positions, segments=segments, use_cache=False
    ).logits
    return logits[0]


def close(alone: Tensor, together: Tensor) -> bool:
    """Return whether the logits of rows alone and together differ by no more than rounding."""
    if alone.shape != together.shape:
        return False
    spread = float(alone.float().std()) or 1.0
    rounding = 16 * torch.finfo(alone.dtype).eps
    return float((alone.float() - together.float()).abs().max()) <= max(TOLERANCE, rounding) * spread


@contextmanager
def ordinary_attention(model: Any) -> Iterator[None]:
    """While open, the model's attention is that of transformers, which generates with a cache."""
    if model.config._attn_implementation != NAME:
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)

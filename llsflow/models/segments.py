"""Rows one after another in one sequence without padding, each as if it were alone.

Two rows that begin alike, as the answers to one prompt do, may share what they have in common: it stands in the
sequence once, and is computed once.

Every layer but attention works on single tokens, so it need not know where a row ends. Attention does: it is given
the rows' borders, spreads its rows to a padded batch of their own, and brings the result back. So padding costs
attention alone, whatever the rows' lengths, and a row never sees another.

Letters: n rows, t tokens of all of them, h heads, d head size, l longest row of a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "llsflow_segments"
"""What the attention is called in transformers' registry."""

BUCKETS = 4
"""Most calls of the attention kernel for one layer."""

TOLERANCE = 1e-3
"""Largest difference of the logits, as a share of their spread, between a row alone and the same among others."""


@dataclass(frozen=True)
class Bucket:
    """Rows of like length, padded to the longest of them for attention."""

    rows: int
    longest: int
    spread: Tensor
    """int64 [rows · longest]: which token of the sequence stands there; padding repeats the row's first."""
    back: Tensor
    """int64 [o]: where each of the o tokens that the bucket's rows own stands in the padded rows."""
    fill: Tensor
    """int64 [rows · longest]: which of the o tokens stands there; o where none of them does."""
    copies: Tensor
    """int64 [c]: where in the padded rows the c tokens stand that a row shares with the one before it."""
    copied: Tensor
    """int64 [c]: where those stand in the sequence."""

    def to(self, device: torch.device) -> Bucket:
        """Return the bucket on another device."""
        found = (self.spread, self.back, self.fill, self.copies, self.copied)
        return Bucket(self.rows, self.longest, *(index.to(device, non_blocking=True) for index in found))


@dataclass(frozen=True)
class Segments:
    """Where the rows of one sequence end."""

    lengths: tuple[int, ...]
    """Tokens of each row."""
    shared: tuple[int, ...]
    """How many of each row's first tokens are those of the row before it."""
    positions: Tensor
    """int64 [1, t]: each token's place in its own row."""
    buckets: tuple[Bucket, ...]
    order: Tensor
    """int64 [t]: brings the buckets' tokens, one bucket after another, into the sequence's order."""
    inverse: Tensor
    """int64 [t]: brings the sequence's tokens into the buckets' order."""

    @classmethod
    def of(cls, lengths: Sequence[int], shared: Sequence[int] | None = None) -> Segments:
        """Return the borders of rows, in this order.

        Args:
            lengths: tokens of each row.
            shared: how many of a row's first tokens are those of the row before it, which itself shares none; the
                sequence has them once.
        """
        sizes = np.asarray(lengths, dtype=np.int64)
        common = np.zeros_like(sizes) if shared is None else np.asarray(shared, dtype=np.int64)
        own = sizes - common
        starts = np.concatenate([[0], np.cumsum(own)[:-1]])
        # where a row would start if what it shares stood before what it owns, and where what it shares stands
        virtual, before = starts - common, np.concatenate([[0], starts[:-1]])
        made, tokens = [], []
        for rows in _groups(sizes):
            longest = int(sizes[rows].max())
            place = np.arange(longest)[None, :]
            inside, mine = place < sizes[rows][:, None], place >= common[rows][:, None]
            token = np.where(mine, virtual[rows][:, None], before[rows][:, None]) + place
            token = np.where(inside, token, token[:, :1])
            owned, copies = inside & mine, inside & ~mine
            fill = np.where(owned.ravel(), np.cumsum(owned.ravel()) - 1, int(owned.sum()))
            indices = (token.ravel(), np.flatnonzero(owned), fill, np.flatnonzero(copies), token[copies])
            made.append(Bucket(len(rows), longest, *(_tensor(index) for index in indices)))
            tokens.append(token[owned])
        positions = np.arange(int(own.sum())) - np.repeat(virtual, own)
        inverse = np.concatenate(tokens)
        order = np.argsort(inverse, kind="stable")
        told = [tuple(int(number) for number in found) for found in (sizes, common)]
        where = (_tensor(index) for index in (order, inverse))
        return cls(told[0], told[1], _tensor(positions)[None], tuple(made), *where)

    @property
    def own(self) -> list[int]:
        """How many tokens of the sequence are each row's own."""
        return [length - shared for length, shared in zip(self.lengths, self.shared, strict=True)]

    def rows(self, sequence: Tensor) -> list[Tensor]:
        """Return the whole rows of something that has an entry for each token of the sequence, [t, …]."""
        parts = torch.split(sequence, self.own)
        found: list[Tensor] = []
        for part, shared in zip(parts, self.shared, strict=True):
            found.append(torch.cat([found[-1][:shared], part]) if shared else part)
        return found

    def to(self, device: torch.device) -> Segments:
        """Return the borders on another device."""
        buckets = tuple(bucket.to(device) for bucket in self.buckets)
        positions, order, inverse = (index.to(device) for index in (self.positions, self.order, self.inverse))
        return Segments(self.lengths, self.shared, positions, buckets, order, inverse)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def _groups(sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows in at most BUCKETS groups, cut so that the fewest scores of padding are computed."""
    order = np.argsort(sizes, kind="stable")
    areas = sizes[order] ** 2
    groups = [order]
    while len(groups) < BUCKETS:
        best = max(range(len(groups)), key=lambda index: _saved(sizes[groups[index]])[0])
        saved, cut = _saved(sizes[groups[best]])
        if saved < 0.25 * int(areas.sum()):
            break
        groups[best : best + 1] = [groups[best][:cut], groups[best][cut:]]
    return groups


def _saved(sizes: NDArray[np.int64]) -> tuple[int, int]:
    """Return the attention scores that the best cut of sorted rows saves, and where it is."""
    if len(sizes) < 2:
        return 0, 0
    shorter = np.arange(1, len(sizes))
    saved = shorter * (sizes[-1] ** 2 - sizes[:-1] ** 2)
    best = int(np.argmax(saved))
    return int(saved[best]), best + 1


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
        window = _window(bucket.longest, sliding_window, query.device)
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


def _window(longest: int, size: int | None, device: torch.device) -> Tensor | None:
    """Return which tokens see which, bool [l, l]; None where every token sees all before it."""
    if size is None or longest <= size:
        return None
    seen = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    return seen.triu(1 - size)


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
    except Exception:
        together = None
    finally:
        model.train(training)
    if together is not None and _close(torch.cat(alone), together):
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


def _close(alone: Tensor, together: Tensor) -> bool:
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

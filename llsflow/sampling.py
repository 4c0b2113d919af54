"""Logits to the next token: pure functions, one draw a row, so that a row's answer is its own.

b rows, v vocabulary, k kept tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llsflow.schema.sampling import (
    GreedySamplingStrategy,
    SamplingStrategy,
    TopKSamplingStrategy,
    TopPSamplingStrategy,
)


def penalise(logits: Tensor, seen: Tensor, penalty: float | Tensor) -> Tensor:
    """Return logits [b, v] with those of tokens `seen` [b, v] made less likely: divided if positive, else multiplied.

    `penalty`: one for all, or one a row, [b, 1].

    Source: CTRL (arXiv:1909.05858), section 4.1, with the sign taken into account as transformers does.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def choose(logits: Tensor, strategy: SamplingStrategy, uniforms: Tensor) -> Tensor:
    """Return the next token [b] of each row of logits [b, v]; `uniforms` [b] in [0, 1) decides where it is drawn."""
    match strategy:
        case GreedySamplingStrategy():
            return logits.argmax(dim=-1)
        case TopPSamplingStrategy(temperature=temperature, top_p=top_p):
            scaled = logits.double() / temperature
            probabilities, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
            if top_p is not None:
                probabilities = probabilities * nucleus(probabilities, top_p)
            return draw(probabilities, order, uniforms)
        case TopKSamplingStrategy(top_k=top_k):
            top, order = logits.double().topk(min(top_k, logits.shape[-1]), dim=-1)
            return draw(top.softmax(dim=-1), order, uniforms)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return which of the descending probabilities [b, v] make up the smallest set that reaches `top_p`.

    Source: arXiv:1904.09751, equations 2 and 3.
    """
    before = probabilities.cumsum(dim=-1) - probabilities
    keep = before < top_p
    keep[..., 0] = True
    return keep


def draw(weights: Tensor, tokens: Tensor, uniforms: Tensor) -> Tensor:
    """Return one of `tokens` [b, k] a row, with chance in proportion to `weights` [b, k]: the inverse of their sum."""
    sums = weights.cumsum(dim=-1)
    at = torch.searchsorted(sums, uniforms.to(sums).unsqueeze(-1) * sums[..., -1:], right=True)
    # a product that rounds up to the whole sum would point behind the last token with weight
    last = (weights > 0).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(-1, at.minimum(last)).squeeze(-1)

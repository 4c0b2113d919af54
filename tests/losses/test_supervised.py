"""The supervised loss, against worked arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from llsflow.losses.supervised import IGNORED, next_token_labels, token_losses


def test_labels_are_the_next_token_where_that_one_is_learned() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.tensor([[False, False, True, True]])
    assert next_token_labels(ids, mask).tolist() == [[IGNORED, 7, 8, IGNORED]]


def test_the_first_token_is_never_predicted() -> None:
    ids = torch.tensor([[5, 6]])
    assert next_token_labels(ids, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[6, IGNORED]]


def test_two_tokens_by_hand() -> None:
    # token 1: logits (0, ln 3), label 1: p = 3 / (1 + 3), -ln p = ln 4 - ln 3
    # token 2: logits (0, 0), label 0: p = 1 / 2, -ln p = ln 2
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    losses = token_losses(logits, torch.tensor([1, 0]))
    assert losses.tolist() == pytest.approx([math.log(4) - math.log(3), math.log(2)], rel=1e-6)


def test_half_precision_logits_are_summed_in_fp32() -> None:
    logits = torch.zeros(4096, 2, dtype=torch.bfloat16)
    loss = token_losses(logits, torch.zeros(4096, dtype=torch.int64)).sum()
    assert loss.dtype == torch.float32
    assert math.isclose(float(loss), 4096 * math.log(2), rel_tol=1e-5)

"""Optimizers and learning rates, against worked arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from llsflow.schema.training import OptimizerConfig
from llsflow.training.optimizers import build_optimizer, learning_rate


def config(kind: str = "adamw", **changes: object) -> OptimizerConfig:
    base = {"optimizer_type": kind, "lr": 0.1, "weight_decay": 0.5, "num_warmup_steps": 4}
    return OptimizerConfig.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("cosine", 0, 0.1 / 4),  # the first of four warm-up steps
        ("cosine", 3, 0.1),  # the last of them
        ("cosine", 4, 0.1),
        ("cosine", 8, 0.1 * (1 + math.cos(math.pi / 2)) / 2),  # half of the 8 steps after warm-up
        ("linear", 8, 0.05),
        ("linear", 11, 0.1 * (1 - 7 / 8)),
        ("constant", 11, 0.1),
    ],
)
def test_learning_rate_by_hand(schedule: str, step: int, expected: float) -> None:
    assert math.isclose(learning_rate(step, 12, config(), schedule), expected, rel_tol=1e-9)


def one_step(kind: str, gradient: float, weight: float = 1.0, **changes: object) -> tuple[float, float]:
    """Return a matrix's and a bias' entry after one step."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(weight)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    build_optimizer(layer.parameters(), config(kind, **changes)).step()
    return layer.weight.item(), layer.bias.item()


def test_sgd_adds_the_decay_to_the_gradient_of_matrices_only() -> None:
    # w - lr (g + wd w) = 1 - 0.1 (2 + 0.5); bias: 1 - 0.1 · 2
    assert one_step("sgd", 2.0) == pytest.approx((0.75, 0.8))


def test_adamw_decays_apart_from_the_gradient() -> None:
    # the first Adam step has length lr; before it w is shrunk by lr wd = 5 %
    assert one_step("adamw", 2.0) == pytest.approx((1 - 0.05 - 0.1, 0.9), abs=1e-5)


def test_adam_decays_through_the_gradient() -> None:
    # with g = -0.25 the decay 0.5 turns the sign of the matrix' gradient, not of the bias'
    assert one_step("adam", -0.25) == pytest.approx((0.9, 1.1), abs=1e-5)


def test_the_learning_rate_is_the_configured_one() -> None:
    assert one_step("sgd", 1.0, lr=0.01, weight_decay=0.0) == pytest.approx((0.99, 0.99))

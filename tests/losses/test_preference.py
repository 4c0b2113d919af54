"""Preference losses: by hand, and as TRL computes them (make_trl_values.py wrote its values down)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from llsflow.losses.preference import preference_loss, rewards
from llsflow.losses.supervised import answer_log_probabilities
from llsflow.schema.training import DPOAlignmentConfig, DPOLossType

TRL = json.loads(Path(__file__).with_name("trl_values.json").read_text("utf-8"))
POLICY = torch.tensor([[-1.0, -4.0], [-3.0, -2.0]])
REFERENCE = torch.tensor([[-2.0, -3.0], [-2.0, -2.5]])
TOKENS = torch.tensor([[2, 4], [1, 5]])
"""Ratios, chosen and rejected: (1, -1) and (-1, 0.5); margins 2 and -1.5."""


def loss(name: str, beta: float = 0.5) -> list[float]:
    config = DPOAlignmentConfig(beta=beta, loss_type=DPOLossType(name))
    found: list[float] = preference_loss(POLICY, REFERENCE, TOKENS, config).tolist()
    return found


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sigmoid", [-math.log(sigmoid(0.5 * 2)), -math.log(sigmoid(0.5 * -1.5))]),
        ("hinge", [0.0, 1 + 0.75]),
        # per token: 1/2 + 1/4 = 0.75 and -1 - 0.1 = -1.1; 1 / (2β) = 1
        ("ipo", [(0.75 - 1) ** 2, (-1.1 - 1) ** 2]),
        # anchors: chosen max(0, (1 - 1) / 2) = 0, rejected max(0, (-1 + 0.5) / 2) = 0
        (
            "kto_pair",
            [1 - (sigmoid(0.5) + sigmoid(0.5)) / 2, 1 - (sigmoid(-0.5) + sigmoid(-0.25)) / 2],
        ),
    ],
)
def test_worked_by_hand(name: str, expected: list[float]) -> None:
    assert loss(name) == pytest.approx(expected, rel=1e-6)


def test_kto_holds_each_answer_against_the_other_kinds_mean() -> None:
    policy = torch.tensor([[3.0, 1.0], [1.0, 1.0]], requires_grad=True)
    config = DPOAlignmentConfig(beta=1.0, loss_type=DPOLossType.KTO_PAIR)
    found = preference_loss(policy, torch.zeros(2, 2), torch.ones(2, 2), config)
    # anchors: chosen 2, rejected 1
    expected = [1 - (sigmoid(3 - 1) + sigmoid(2 - 1)) / 2, 1 - (sigmoid(1 - 1) + sigmoid(2 - 1)) / 2]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert policy.grad is not None
    slope = -sigmoid(2) * (1 - sigmoid(2)) / 2
    assert float(policy.grad[0, 0]) == pytest.approx(slope, rel=1e-5), "the anchor carries a gradient"


@pytest.mark.parametrize("case", TRL, ids=lambda case: str(case["loss_type"]))
def test_the_loss_is_trls(case: dict[str, Any]) -> None:
    config = DPOAlignmentConfig(beta=case["beta"], loss_type=DPOLossType(case["loss_type"]))
    policy, reference, tokens = (torch.tensor(case[name]) for name in ("policy", "reference", "tokens"))
    assert float(preference_loss(policy, reference, tokens, config).mean()) == pytest.approx(case["loss"], rel=1e-5)


@pytest.mark.parametrize("name", list(DPOLossType))
def test_a_better_chosen_answer_is_a_lower_loss(name: DPOLossType) -> None:
    config = DPOAlignmentConfig(beta=0.1, loss_type=name)
    policy = torch.zeros(3, 2, requires_grad=True)
    preference_loss(policy, torch.zeros(3, 2), torch.ones(3, 2), config).sum().backward()  # type: ignore[no-untyped-call]
    assert policy.grad is not None
    assert (policy.grad[:, 0] < 0).all()
    assert (policy.grad[:, 1] > 0).all()


def test_rewards_are_beta_times_the_ratio_and_carry_no_gradient() -> None:
    policy = POLICY.clone().requires_grad_()
    found = rewards(policy, REFERENCE, 0.5)
    assert found.tolist() == [[0.5, -0.5], [-0.5, 0.25]]
    assert not found.requires_grad


def test_an_answers_log_probability_is_the_sum_over_its_tokens() -> None:
    losses = -torch.log(torch.tensor([0.5, 0.75, 0.9]))
    found = answer_log_probabilities(losses, torch.tensor([1, 0, 1]), 3)
    assert found.tolist() == pytest.approx([math.log(0.75), math.log(0.5) + math.log(0.9), 0.0])

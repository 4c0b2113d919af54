"""Losses of preference optimisation, on the log-probabilities of a chosen and a rejected answer.

Letters: p pairs; β `DPOAlignmentConfig.beta`; π the policy, π₀ the reference; y_w the chosen answer, y_l the
rejected one; r(y) = log π(y) - log π₀(y), of the whole answer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from llsflow.schema.training import DPOAlignmentConfig, DPOLossType

CHOSEN, REJECTED = 0, 1
"""Columns of what comes in pairs."""


def sigmoid(ratios: Tensor, beta: float) -> Tensor:
    """Return -log σ(β (r(y_w) - r(y_l))), [p].

    Source: DPO, Rafailov et al. 2023 (arXiv:2305.18290), equation 7.
    """
    return -functional.logsigmoid(beta * _margin(ratios))


def hinge(ratios: Tensor, beta: float) -> Tensor:
    """Return max(0, 1 - β (r(y_w) - r(y_l))), [p].

    Source: SLiC-HF's calibration loss on DPO's ratios, as RSO has it, Liu et al. 2023 (arXiv:2309.06657), equation 9.
    """
    return torch.relu(1 - beta * _margin(ratios))


def ipo(ratios: Tensor, beta: float, tokens: Tensor) -> Tensor:
    """Return (r(y_w) / |y_w| - r(y_l) / |y_l| - 1 / (2β))², [p]; |y| tokens of the answer.

    Source: IPO, Azar et al. 2023 (arXiv:2310.12036), equation 17 with τ = β; per token, as its authors computed it
    (else the square grows with the answer's length).
    """
    return (_margin(ratios / tokens.clamp(min=1)) - 1 / (2 * beta)) ** 2


def kto_pair(ratios: Tensor, beta: float) -> Tensor:
    """Return 1 - ½ σ(β (r(y_w) - z_l)) - ½ σ(β (z_w - r(y_l))), [p], with z = max(0, mean of r over the pairs given).

    Each answer is held against how far the answers of the other kind have moved; z carries no gradient.

    Source: KTO, Ethayarajh et al. 2024 (arXiv:2402.01306), equation 8 with λ_D = λ_U = 1, for pairs as in the
    authors' first implementation: there the loss is the mean over the 2p answers, so it is over both halves here.
    """
    anchors = ratios.detach().mean(dim=0).clamp(min=0)
    chosen = torch.sigmoid(beta * (ratios[:, CHOSEN] - anchors[REJECTED]))
    rejected = torch.sigmoid(beta * (anchors[CHOSEN] - ratios[:, REJECTED]))
    return 1 - (chosen + rejected) / 2


LOSSES: dict[DPOLossType, Callable[[Tensor, float], Tensor]] = {
    DPOLossType.SIGMOID: sigmoid,
    DPOLossType.HINGE: hinge,
    DPOLossType.KTO_PAIR: kto_pair,
}
"""Those that see whole answers; IPO sees their tokens too."""


def preference_loss(policy: Tensor, reference: Tensor, tokens: Tensor, config: DPOAlignmentConfig) -> Tensor:
    """Return the loss of each pair, [p], in fp32.

    Args:
        policy: log π of the answers, [p, 2]: chosen, rejected; in nats, summed over the answer's tokens.
        reference: log π₀ of the same, [p, 2].
        tokens: how many tokens each answer has, [p, 2].
        config: which loss, and its β.
    """
    ratios = policy - reference
    if config.loss_type is DPOLossType.IPO:
        return ipo(ratios, config.beta, tokens)
    return LOSSES[config.loss_type](ratios, config.beta)


def rewards(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Return the implicit rewards β r(y), [p, 2].

    Source: DPO (arXiv:2305.18290), section 5, r̂ of equation 7's gradient.
    """
    return beta * (policy - reference).detach()


def _margin(ratios: Tensor) -> Tensor:
    return ratios[:, CHOSEN] - ratios[:, REJECTED]

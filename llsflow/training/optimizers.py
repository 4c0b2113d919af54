"""The spec's optimizers, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from llsflow.schema.training import OptimizerConfig, OptimizerType

OPTIMIZERS: dict[OptimizerType, Callable[..., Optimizer]] = {
    OptimizerType.ADAM: Adam,
    OptimizerType.ADAMW: AdamW,
    OptimizerType.SGD: SGD,
}


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> Optimizer:
    """Return the optimizer, with weight decay on matrices only.

    Biases and norm gains are scales, not directions: decaying them pulls the network towards 0 output
    (as in GPT-3's training, arXiv:2005.14165, appendix B and its successors).
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trained)
    return OPTIMIZERS[config.optimizer_type](
        [group for group in groups if group["params"]], lr=config.lr, fused=fused or None
    )


def learning_rate(step: int, total: int, config: OptimizerConfig, schedule: str) -> float:
    """Return the learning rate of optimizer step `step` (from 0) of `total`.

    Warm-up: lr · (step + 1) / warm-up steps. After it, with p the share of the remaining steps done:
    constant: lr; linear: lr · (1 - p); cosine: lr · (1 + cos(π p)) / 2 (arXiv:1608.03983, equation 5,
    without restarts).
    """
    warm_up = config.num_warmup_steps
    if step < warm_up:
        return config.lr * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return config.lr * SCHEDULES[schedule](progress)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2,
}


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the 2-norm of all gradients together, a scalar."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

"""How fast this machine trains: measured by every training, used by the next plan's estimates."""

from __future__ import annotations

import os
from pathlib import Path

from llsflow import home

FLOPS_PER_CORE = 2.3e10
"""Floating point operations a second that a small model reaches on one CPU core, until this machine is measured."""


def flops_per_second() -> float:
    """Return what the last training reached on this machine, or a guess by its cores."""
    measured = home.read_json(_memo())
    return float(measured) if measured else FLOPS_PER_CORE * (os.cpu_count() or 1)


def remember(parameters: int, tokens_per_second: float) -> None:
    """Keep the speed of a training: 6 operations a parameter and token (arXiv:2001.08361, section 2.1)."""
    home.write_json(_memo(), 6.0 * parameters * tokens_per_second)


def _memo() -> Path:
    return home.home() / "cache" / "flops_per_second.json"

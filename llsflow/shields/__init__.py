"""Shields: what looks at what comes in and what goes out, by the `type` of a shield's provider."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from llsflow.schema.shields import ShieldConfig
from llsflow.shields.base import Ask, Said, Shield, severity
from llsflow.shields.together import NamedShield, holds_back, look

SHIELDS: Mapping[str, str] = {
    "patterns": "patterns:PatternShield",
    "llama_guard": "llama_guard:LlamaGuardShield",
    "moderation": "moderation:ModerationShield",
}
"""Module and class of each, imported when one of it is made first."""


def shield_of(config: ShieldConfig, ask: Ask) -> NamedShield:
    """Return a shield, ready to be asked; it touches no network until then.

    Args:
        config: of the shield.
        ask: how a model is asked.

    Raises:
        ConfigError: patterns that do not compile, all of them.
    """
    module, _, name = SHIELDS[config.provider.type].partition(":")
    shield: Shield = getattr(importlib.import_module(f"llsflow.shields.{module}"), name)(config.provider, config, ask)
    return NamedShield(config, shield)


__all__ = ["SHIELDS", "Ask", "NamedShield", "Said", "Shield", "holds_back", "look", "severity", "shield_of"]

"""Shields for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llsflow.schema.shields import ShieldConfig
from llsflow.shields import Ask, NamedShield, shield_of


async def nobody(model: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """Ask no model: the shield needs none."""
    raise AssertionError(f"{model} was asked")


def shield(provider: Mapping[str, Any], ask: Ask = nobody, **changes: Any) -> NamedShield:
    """Return a shield of the configuration, as YAML gives it."""
    return shield_of(ShieldConfig.model_validate({"shield_id": "given", "provider": provider, **changes}), ask)

"""Build hook: conf/ and flows/ stand at the top of the checkout and inside the package in a wheel."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CarryInside(BuildHookInterface):
    """Put conf/ and flows/ into the wheel as llsflow/conf and llsflow/flows; an editable install keeps them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the two folders to a real wheel only: an editable one must not hold stale copies."""
        if version == "standard":
            build_data["force_include"].update({"conf": "llsflow/conf", "flows": "llsflow/flows"})

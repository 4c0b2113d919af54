"""An example of every operation's request and answer, by the operation's name."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, tuple[Any, Any]] = {}

"""What every shield is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llsflow.schema.agents import SafetyViolation


@dataclass(frozen=True)
class Said:
    """One message of what a shield looks at."""

    role: Literal["user", "assistant"]
    text: str


Ask = Callable[[str, Sequence[Mapping[str, Any]]], Awaitable[str]]
"""The name of a model and messages of the OpenAI protocol -> what it answers, greedily.

NotFoundError, UnavailableError, ValueError: it does not.
"""


class Shield(Protocol):
    """Looks at the last of some messages; those before it say what it answers to."""

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what it finds in the last message; None: nothing.

        Raises:
            UnavailableError: it cannot be asked.
        """

"""What every shield is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llsflow.schema.agents import SafetyViolation, ViolationLevel


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
    """Looks at the last of some messages; those before it say what it answers to. It lives in one event loop."""

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what it finds in the last message; None: nothing.

        Who calls cancels it when its time is over.

        Args:
            said: at least one message.

        Raises:
            UnavailableError: it cannot be asked, or what it answers cannot be read.
        """

    async def close(self) -> None:
        """End what it has open."""


_LEVELS = (ViolationLevel.INFO, ViolationLevel.WARN, ViolationLevel.ERROR)


def severity(level: ViolationLevel) -> int:
    """Return how bad a level is: more is worse."""
    return _LEVELS.index(level)

"""Shields as turns ask them: by name, within their time, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llsflow.errors import UnavailableError
from llsflow.schema.agents import SafetyViolation, ViolationLevel
from llsflow.schema.shields import ShieldConfig
from llsflow.shields.base import Said, Shield, severity


@dataclass(frozen=True)
class NamedShield:
    """A shield with its configuration, which names it and limits its time."""

    config: ShieldConfig
    shield: Shield

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what the shield finds in the last message; None: nothing.

        Raises:
            UnavailableError: it cannot be asked, or did not answer in time, and which shield it is.
        """
        try:
            async with asyncio.timeout(self.config.timeout_seconds) as limit:
                return await self.shield.look(said)
        except UnavailableError as error:
            raise UnavailableError(f"shield {self.config.shield_id}: {error}") from error
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = f"no answer within {self.config.timeout_seconds:g} s (timeout_seconds)"
            raise UnavailableError(f"shield {self.config.shield_id}: {late}") from error

    async def close(self) -> None:
        """End what the shield has open."""
        await self.shield.close()


async def look(shields: Sequence[NamedShield], said: Sequence[Said]) -> SafetyViolation | None:
    """Ask shields about a message, all at once, and return the worst that one finds; of equals the first shield's.

    Its metadata gains `shield_id`, and `others` where more shields found something: of each its shield_id,
    violation_level and metadata.

    Args:
        shields: whom to ask; none of them finds nothing.
        said: the message, last, behind what it answers to.

    Raises:
        UnavailableError: shields could not be asked, all of them named, and the others found no error.
    """
    answers = await asyncio.gather(*(shield.look(said) for shield in shields), return_exceptions=True)
    found: list[tuple[str, SafetyViolation]] = []
    failures: list[UnavailableError] = []
    for shield, answer in zip(shields, answers, strict=True):
        if isinstance(answer, UnavailableError):
            failures.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        elif answer is not None:
            found.append((shield.config.shield_id, answer))
    worst = max(found, key=lambda one: severity(one[1].violation_level), default=None)
    if failures and (worst is None or worst[1].violation_level is not ViolationLevel.ERROR):
        raise UnavailableError("; ".join(map(str, failures))) from failures[0]
    return _told(worst, [one for one in found if one is not worst]) if worst else None


def _told(worst: tuple[str, SafetyViolation], others: Sequence[tuple[str, SafetyViolation]]) -> SafetyViolation:
    shield_id, violation = worst
    metadata: dict[str, Any] = {**violation.metadata, "shield_id": shield_id}
    if others:
        metadata["others"] = [
            {"shield_id": name, "violation_level": other.violation_level, "metadata": other.metadata}
            for name, other in others
        ]
    return violation.model_copy(update={"metadata": metadata})


def holds_back(shields: Iterable[NamedShield]) -> bool:
    """Return whether an answer waits until these shields have passed it: one of them wants it to."""
    return any(shield.config.hold_back for shield in shields)

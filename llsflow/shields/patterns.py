"""The shield `patterns`: regular expressions, each with its level and its words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llsflow.errors import ConfigError, Mistake, UnavailableError
from llsflow.schema.agents import SafetyViolation
from llsflow.schema.shields import Pattern, Patterns, ShieldConfig
from llsflow.shields.base import Ask, Said, severity

if TYPE_CHECKING:
    import regex  # type: ignore[import-untyped]

TIME_LIMIT_SECONDS = 1.0
"""Longest search with one pattern; one that backtracks without end stops here."""


@dataclass(frozen=True)
class _Compiled:
    """A pattern, and what it says where it is found."""

    index: int
    """Its place in the list, from 0."""
    pattern: regex.Pattern[str]
    violation: SafetyViolation


class PatternShield:
    """Looks for regular expressions in the last message; the worst one found counts, of equals the first."""

    def __init__(self, provider: Patterns, config: ShieldConfig, ask: Ask) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: some do not compile: every one of them, with the reason.
        """
        compiled: list[_Compiled] = []
        mistakes: list[Mistake] = []
        for index, pattern in enumerate(provider.patterns):
            found = _compile(index, pattern, config)
            if isinstance(found, Mistake):
                mistakes.append(found)
            else:
                compiled.append(found)
        if mistakes:
            raise ConfigError(mistakes)
        # the worst first: nothing behind the first one found is any worse
        self._worst_first = sorted(compiled, key=lambda one: -severity(one.violation.violation_level))
        self._seconds = config.timeout_seconds

    async def look(self, said: Sequence[Said]) -> SafetyViolation | None:
        """Return what is found in the last message.

        Raises:
            UnavailableError: a search ran out of time, and with which pattern.
        """
        return await asyncio.to_thread(self._search, said[-1].text)

    def _search(self, text: str) -> SafetyViolation | None:
        until = time.monotonic() + self._seconds
        for one in self._worst_first:
            # nobody can end a thread: it keeps to the shield's limit by itself. Less than 0 would be no limit at all.
            left = max(0.0, min(TIME_LIMIT_SECONDS, until - time.monotonic()))
            try:
                found = one.pattern.search(text, timeout=left, concurrent=True)
            except TimeoutError as error:
                where = f"provider.patterns.{one.index}.pattern"
                raise UnavailableError(
                    f"{where} {one.pattern.pattern!r} ran out of time ({TIME_LIMIT_SECONDS:g} s at most): "
                    "write it so that it backtracks less"
                ) from error
            if found is not None:
                return one.violation
        return None

    async def close(self) -> None:
        """Nothing is open."""


def _compile(index: int, pattern: Pattern, config: ShieldConfig) -> _Compiled | Mistake:
    import regex

    text = pattern.pattern
    violation = SafetyViolation(
        violation_level=pattern.violation_level or config.violation_level,
        user_message=pattern.user_message or config.user_message,
        # never what was found: it may be the very secret that is looked for
        metadata={"pattern": text, "pattern_index": index},
    )
    try:
        return _Compiled(index, regex.compile(text, regex.IGNORECASE), violation)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        where = f"shield {config.shield_id}: provider.patterns.{index}.pattern"
        return Mistake(where, f"{text!r} is no regular expression ({error}): mend it, or put \\ before what is text")

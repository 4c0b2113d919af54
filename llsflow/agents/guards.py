"""The shields of agents: found by their names in conf/shield, and asked about what comes in and what goes out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llsflow.agents.history import Wire
from llsflow.agents.work import Payload, Work
from llsflow.errors import ConfigError, Mistake, MistakesError, NotFoundError
from llsflow.schema.agents import (
    AgentConfig,
    AgentTurnResponseStepStartPayload,
    SafetyViolation,
    ShieldCallStep,
    StepType,
    ViolationLevel,
)
from llsflow.schema.inference import CompletionMessage, StopReason
from llsflow.schema.shields import ShieldConfig
from llsflow.shields import Ask, NamedShield, Said, look, shield_of

INPUT, OUTPUT = "user-input", "assistant-output"
"""Touchpoints, as the reference server names them in a step's metadata."""


@dataclass(frozen=True)
class AgentShields:
    """The shields of one agent."""

    input: Sequence[NamedShield] = ()
    output: Sequence[NamedShield] = ()


@dataclass
class Guards:
    """The shields of this process; used in one event loop."""

    find: Callable[[str], ShieldConfig]
    """Returns the shield of a name; NotFoundError, ConfigError."""
    ask: Ask
    _made: dict[str, NamedShield] = field(default_factory=dict)
    """By their configuration."""

    def of(self, config: AgentConfig) -> AgentShields:
        """Return the shields of an agent.

        Raises:
            ConfigError: shields that are not there or cannot be made: every mistake at once.
        """
        mistakes: list[Mistake] = []
        found = {key: list(self._named(config, key, mistakes)) for key in ("input_shields", "output_shields")}
        if mistakes:
            raise ConfigError(mistakes)
        return AgentShields(found["input_shields"], found["output_shields"])

    async def close(self) -> None:
        """End what they have open."""
        every, self._made = list(self._made.values()), {}
        await asyncio.gather(*(shield.close() for shield in every), return_exceptions=True)

    def _named(self, config: AgentConfig, key: str, mistakes: list[Mistake]) -> Iterator[NamedShield]:
        for place, name in enumerate(getattr(config, key) or ()):
            where = f"agent_config.{key}.{place}"
            try:
                yield self._shield(self.find(name))
            except MistakesError as error:
                mistakes += [Mistake(where, str(mistake)) for mistake in error.mistakes]
            except NotFoundError as error:
                mistakes.append(Mistake(where, str(error)))

    def _shield(self, config: ShieldConfig) -> NamedShield:
        key = config.model_dump_json()
        if key not in self._made:
            self._made[key] = shield_of(config, self.ask)
        return self._made[key]


async def look_at_input(work: Work, shields: Sequence[NamedShield]) -> AsyncGenerator[Payload]:
    """Ask about what the user says, and yield the events of it; what stops the turn is in `work.stopped`.

    Raises:
        UnavailableError: a shield cannot be asked.
    """
    step_id, began = str(uuid.uuid4()), datetime.now(UTC)
    yield started(step_id, INPUT)
    said = [*spoken(work.before), Said("user", "\n\n".join(one.text for one in spoken(work.asked)))]
    violation = await look(shields, said)
    work.stopped = violation if stops(violation) else None
    yield await work.keep(shield_step(work, step_id, began, violation))


def started(step_id: str, touchpoint: str) -> Payload:
    """Return the event of a shield's beginning."""
    metadata = {"touchpoint": touchpoint}
    return AgentTurnResponseStepStartPayload(step_type=StepType.SHIELD_CALL, step_id=step_id, metadata=metadata)


def shield_step(work: Work, step_id: str, began: datetime, violation: SafetyViolation | None) -> ShieldCallStep:
    """Return the step of shields that have been asked."""
    return ShieldCallStep(
        turn_id=work.turn.turn_id,
        step_id=step_id,
        started_at=began,
        completed_at=datetime.now(UTC),
        violation=violation,
    )


def refusal(violation: SafetyViolation) -> CompletionMessage:
    """Return what is said instead of what a shield has stopped."""
    return CompletionMessage(content=violation.user_message or "", stop_reason=StopReason.END_OF_TURN, tool_calls=[])


def stops(violation: SafetyViolation | None) -> bool:
    """Return whether a violation ends the turn."""
    return violation is not None and violation.violation_level is ViolationLevel.ERROR


def spoken(messages: Sequence[Wire]) -> list[Said]:
    """Return what was said of messages, without tools and images."""
    found = []
    for message in messages:
        content, role = message.get("content"), message["role"]
        if isinstance(content, list):
            content = "\n".join(part["text"] for part in content if part["type"] == "text")
        if content and role in ("user", "assistant"):
            found.append(Said(role, content))
    return found

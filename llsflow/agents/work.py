"""A turn under way, with all that it works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from llsflow.agents import history
from llsflow.agents.generating import Channels
from llsflow.agents.toolbox import Toolbox
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import (
    AgentConfig,
    AgentTurnResponseStepCompletePayload,
    SafetyViolation,
    Step,
    StepType,
    Turn,
)
from llsflow.schema.base import Record
from llsflow.schema.inference import CompletionMessage, ToolChoice, ToolConfig, ToolPromptFormat
from llsflow.shields import NamedShield
from llsflow.store import StoredTurn
from llsflow.store.sessions import Sessions
from llsflow.tools import ToolContext

Payload = Record
"""One of AgentTurnResponseEventPayload."""

DEFAULT_GENERATIONS = 10
"""Of a turn, as in the specification."""


def most_generations(config: AgentConfig) -> int:
    """Return how many generations a turn may have, across its resumptions."""
    return config.max_infer_iters or DEFAULT_GENERATIONS


@dataclass
class Work:
    """A turn, and what it works with."""

    config: AgentConfig
    tool_config: ToolConfig
    toolbox: Toolbox
    input_shields: Sequence[NamedShield]
    output_shields: Sequence[NamedShield]
    context: ToolContext
    model: RemoteModel
    form: ToolPromptFormat | None
    """How calls stand in the model's text; null: the endpoint has its own way."""
    earlier: Sequence[StoredTurn]
    turn: StoredTurn
    sessions: Sessions
    channels: Channels
    view: Callable[[StoredTurn], Turn]
    seed: int | None = None
    """Of what is drawn; null: the model's choice."""
    generations: int = field(init=False)
    said: CompletionMessage | None = None
    """What the model said last."""
    stopped: SafetyViolation | None = None
    """What a shield found in the user's words that ends the turn."""

    def __post_init__(self) -> None:
        self.generations = self.turn.generations

    async def keep(self, step: Step, generations: int | None = None) -> Payload:
        """Store a step that is done, and return its event."""
        record = step.model_dump(mode="json")
        await asyncio.to_thread(self.sessions.add_step, self.turn.turn_id, record, generations)
        self.turn = replace(self.turn, steps=(*self.turn.steps, record))
        return AgentTurnResponseStepCompletePayload(
            step_type=StepType(step.step_type), step_id=step.step_id, step_details=step
        )

    @cached_property
    def before(self) -> Sequence[history.Wire]:
        """The messages of the turns before this one."""
        return history.of_earlier(self.earlier, self.form)

    @property
    def asked(self) -> Sequence[history.Wire]:
        """The messages that this turn began with."""
        return history.of_current(replace(self.turn, steps=()), self.form)

    @property
    def at_limit(self) -> bool:
        """Return whether the turn has had all its generations."""
        return self.generations >= most_generations(self.config)

    @property
    def offers_tools(self) -> bool:
        """Return whether the model may call a tool."""
        return bool(self.toolbox.definitions) and self.tool_config.tool_choice != ToolChoice.NONE

    @property
    def must_call(self) -> str | None:
        """Return what has to be called: a name, "required", or nothing, as after the first answer of a tool."""
        choice = self.tool_config.tool_choice
        answered = any(step["step_type"] == StepType.TOOL_EXECUTION for step in self.turn.steps)
        free = choice in (None, ToolChoice.AUTO, ToolChoice.NONE)
        return None if answered or free or not self.toolbox.definitions else str(choice)

    @property
    def form_now(self) -> ToolPromptFormat | None:
        """Return how the next calls are written: what has to be a call is made one by a JSON schema."""
        return ToolPromptFormat.JSON if self.form and self.must_call else self.form

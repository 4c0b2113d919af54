"""A turn under way, with all that it works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from llsflow.agents import history
from llsflow.agents.generating import Channels
from llsflow.agents.retrieval import Retrieval
from llsflow.agents.sending import Sending, names_at_endpoint
from llsflow.agents.toolbox import Toolbox
from llsflow.agents.traces import Watch
from llsflow.models.generation import Finish
from llsflow.models.remote import RemoteModel
from llsflow.schema.agents import (
    AgentConfig,
    AgentTurnResponseStepCompletePayload,
    InferenceStep,
    SafetyViolation,
    Step,
    StepType,
    Turn,
)
from llsflow.schema.base import Record
from llsflow.schema.inference import CompletionMessage, StopReason, ToolChoice, ToolConfig, ToolPromptFormat
from llsflow.shields import NamedShield
from llsflow.store import StoredTurn
from llsflow.store.records import TurnStatus
from llsflow.store.sessions import Ending, Sessions
from llsflow.tools import ToolContext

Payload = Record
"""One of AgentTurnResponseEventPayload."""

DEFAULT_GENERATIONS = 10
"""Of a turn, as in the specification."""


def ended(status: TurnStatus, message: CompletionMessage) -> Ending:
    """Return how a turn ends with a message."""
    return Ending(status, message.model_dump(mode="json"))


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
    retrieval: Retrieval
    model: RemoteModel
    form: ToolPromptFormat | None
    """How calls stand in the model's text; null: the endpoint has its own way."""
    earlier: Sequence[StoredTurn]
    turn: StoredTurn
    sessions: Sessions
    channels: Channels
    view: Callable[[StoredTurn], Turn]
    watch: Watch | None = None
    """Makes a trace of the turn; null: none is made."""
    seed: int | None = None
    """Of what is drawn; null: the model's choice."""
    again: int = 0
    """How often an answer that broke off is asked for anew; not where somebody reads it as it comes."""
    generations: int = field(init=False)
    said: CompletionMessage | None = None
    """What the model said last."""
    finish: Finish = "stop"
    """Why that ended, as its server says."""
    stopped: SafetyViolation | None = None
    """What a shield found in the user's words that ends the turn."""

    def __post_init__(self) -> None:
        self.generations = self.turn.generations

    async def keep(self, step: Step, ending: Ending | None = None) -> Payload:
        """Store a step that is done, and how the turn ends with it, and return the step's event."""
        record, turn = step.model_dump(mode="json"), self.turn
        generations = self.generations if isinstance(step, InferenceStep) else None
        at = await self.sessions.in_thread(self.sessions.add_step, turn.turn_id, record, generations, ending)
        self.turn = replace(turn, steps=(*turn.steps, record))
        if ending is not None:
            self._ended(ending, at)
        return AgentTurnResponseStepCompletePayload(
            step_type=StepType(step.step_type), step_id=step.step_id, step_details=step
        )

    async def end(self, ending: Ending) -> None:
        """Store how the turn ends."""
        said = ending.output_message
        at = await self.sessions.in_thread(self.sessions.end, self.turn.turn_id, ending.status, output_message=said)
        self._ended(ending, at)

    def _ended(self, ending: Ending, at: datetime) -> None:
        said = ending.output_message
        self.turn = replace(self.turn, status=ending.status, output_message=said, completed_at=at)

    def ending(self) -> Ending | None:
        """Return how the turn ends with what the model said last; None: tools of the server come first."""
        message = self.said
        assert message is not None  # noqa: S101 - the model has spoken
        calls = message.tool_calls or []
        if not calls or message.stop_reason is StopReason.OUT_OF_TOKENS:
            return ended("completed", message)
        if self.at_limit:
            return ended("completed", message.model_copy(update={"stop_reason": StopReason.END_OF_TURN}))
        return self.waiting() if all(self.toolbox.is_callers(call) for call in calls) else None

    def waiting(self) -> Ending | None:
        """Return that the turn waits for the caller's tools; None: none of them was called."""
        message = self.said
        assert message is not None  # noqa: S101 - the model has spoken
        pending = [call for call in message.tool_calls or () if self.toolbox.is_callers(call)]
        if not pending:
            return None
        kept = {"tool_calls": pending, "stop_reason": StopReason.END_OF_MESSAGE}
        return ended("awaiting_input", message.model_copy(update=kept))

    @cached_property
    def before(self) -> Sequence[history.Wire]:
        """The messages of the turns before this one."""
        return history.of_earlier(self.earlier, self.sending)

    @property
    def asked(self) -> Sequence[history.Wire]:
        """The messages that this turn began with."""
        passages = tuple(step for step in self.turn.steps if step["step_type"] == StepType.MEMORY_RETRIEVAL)
        return history.of_current(replace(self.turn, steps=passages), self.sending)

    @cached_property
    def sending(self) -> Sending:
        """How messages are written for the model."""
        is_others = not self.model.is_own
        names = names_at_endpoint(self.toolbox.names) if is_others else {}
        return Sending(self.form, names, is_strict=is_others, images=self.model.endpoint.tool_images)

    @cached_property
    def context(self) -> ToolContext:
        """What the server's tools may know of the turn."""

        async def search(query: str, most: int) -> Sequence[str]:
            return await self.retrieval.search([*self.earlier, self.turn], query, most)

        return ToolContext(self.turn.session_id, search)

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
